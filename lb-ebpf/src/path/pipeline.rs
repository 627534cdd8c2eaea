//! The fast path: from a frame to a verdict.

use lb_common::{
    hop::InterfaceIndex,
    net::{Be16, V4, V6},
    reason::Reason,
    service::{Filter, ServiceKey},
};

use crate::{
    family::Family,
    packet::{
        frame::{Cursor, Frame},
        headers::Ethernet,
        parse::{self, Ip, Packet},
        rewrite,
    },
    path::{
        classify, ended, icmp,
        reply::{self, Reply},
        request::{self, Forward},
        resume,
        slow::{SlowPath, SlowPaths},
    },
    steps::{Steps, Tables},
    storage::{Maps, may_match},
};

/// What happens to a packet. Every packet gets exactly one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A slow path decides.
    Continue(SlowPath),
    /// Out of the interface that received it.
    Transmit,
    /// Out of this interface.
    Redirect(InterfaceIndex),
    /// Not forwarded: the reason decides whether it is passed or dropped.
    Refused(Reason),
    /// Not forwarded, and answered: the frame has become the answer, and leaves by the interface that received it.
    Rejected(Reason),
}

impl Verdict {
    /// The verdict on a packet that arrived on `ingress`, and leaves on `egress` or is not forwarded.
    #[inline(always)]
    pub fn leaving(ingress: InterfaceIndex, egress: Result<InterfaceIndex, Reason>) -> Self {
        match egress {
            Ok(egress) if egress == ingress => Self::Transmit,
            Ok(egress) => Self::Redirect(egress),
            Err(reason) => Self::Refused(reason),
        }
    }
}

/// Where the fast path ends.
enum Exit {
    /// Out of this interface.
    Leave(InterfaceIndex),
    /// In a slow path.
    Continue(SlowPath),
}

/// Decides on a packet, and rewrites it if it is forwarded.
#[inline(always)]
pub fn run(frame: &mut impl Frame, tables: &impl Tables) -> Verdict {
    let ingress = frame.ingress();
    match forward(frame, tables, ingress) {
        Ok(Exit::Leave(egress)) => Verdict::leaving(ingress, Ok(egress)),
        Ok(Exit::Continue(path)) => Verdict::Continue(path),
        Err(reason) => Verdict::Refused(reason),
    }
}

#[inline(always)]
fn forward(frame: &mut impl Frame, tables: &impl Tables, ingress: InterfaceIndex) -> Result<Exit, Reason> {
    let length = frame.length();
    let mut cursor = frame.cursor();
    let ethernet = cursor.take::<Ethernet>()?;
    if !is_for_us(tables, ingress, ethernet) {
        return Err(Reason::NotOurMac);
    }
    let ethertype = Be16::from_bytes(ethernet.ethertype);
    if ethertype == Ethernet::IPV4 {
        let packet = parse::<V4>(cursor, tables, length)?;
        forward_ip(frame, tables, packet)
    } else if ethertype == Ethernet::IPV6 {
        let packet = parse::<V6>(cursor, tables, length)?;
        forward_ip(frame, tables, packet)
    } else {
        Err(Reason::NotIp)
    }
}

/// Is the frame addressed to the interface that received it? A switch that floods, or an interface in promiscuous mode,
/// also delivers frames for other hosts: a standby must not answer in addition to the active node.
///
/// A port of a bond has no entry, so its frames are not compared. Unless the bond is in promiscuous mode, the NIC delivers
/// only those for the bond.
#[inline(always)]
fn is_for_us(maps: &impl Maps, ingress: InterfaceIndex, ethernet: &Ethernet) -> bool {
    maps.interface(ingress).is_none_or(|it| ethernet.is_to(it.mac) || it.attached == 0)
}

/// Parses what follows the Ethernet header. `None`: an ICMP error.
#[inline(always)]
fn parse<F: SlowPaths>(
    mut cursor: Cursor<'_>,
    maps: &impl Maps,
    frame: u64,
) -> Result<Option<Packet<F>>, Reason> {
    let available = cursor.remaining();
    let ip = Ip::<F>::parse(&mut cursor)?;
    ip.check(available).map_err(|reason| if_ours(maps, &ip, reason))?;
    if ip.protocol == F::ICMP {
        // The type is read here, so that a ping does not cost a tail call.
        return if icmp::is_error::<F>(&mut cursor) { Ok(None) } else { Err(Reason::NotService) };
    }
    let packet = Packet::parse(&ip, &mut cursor, frame).map_err(|reason| if_ours(maps, &ip, reason))?;
    Ok(Some(packet))
}

#[inline(always)]
fn forward_ip<F: SlowPaths>(
    frame: &mut impl Frame,
    tables: &impl Steps<F>,
    packet: Option<Packet<F>>,
) -> Result<Exit, Reason> {
    match packet {
        Some(packet) => balance(frame, tables, &packet),
        None => Ok(Exit::Continue(F::ICMP_ERROR)),
    }
}

/// Handles both directions: the prefilter shows which of them a packet may belong to. It is read before everything else,
/// so that unrelated traffic passes even if maps are missing.
#[inline(always)]
fn balance<F: SlowPaths>(
    frame: &mut impl Frame,
    tables: &impl Steps<F>,
    packet: &Packet<F>,
) -> Result<Exit, Reason> {
    let (tuple, layout) = (&packet.tuple, &packet.layout);
    let may_be_request =
        may_match(tables, F::fold(tuple.destination), tuple.ports.destination(), Filter::SERVICE);
    if may_be_request && let Some(Forward { rewrite, backend }) = request::find(tables, packet)? {
        let sent = request::count(tables, layout, backend, rewrite::apply(frame, layout, &rewrite));
        return sent.map(Exit::Leave);
    }
    // A client's endpoint is anywhere in the prefilter, so the read is a cache miss. A SYN to a service is not a reply.
    let may_be_reply = !(may_be_request && packet.segment.is_syn())
        && may_match(tables, F::fold(tuple.source), tuple.ports.source(), Filter::BACKEND);
    if may_be_reply {
        match reply::find(tables, packet)? {
            Some(Reply::Forward(Forward { rewrite, backend })) => {
                let sent = reply::count(tables, layout, backend, rewrite::apply(frame, layout, &rewrite));
                return sent.map(Exit::Leave);
            }
            Some(Reply::Stale) => return Ok(Exit::Continue(F::REFRESH)),
            Some(Reply::Ended(found)) => return ended::prepare(tables, packet, &found).map(Exit::Continue),
            None => {}
        }
    }
    if may_be_request && classify::has_service(tables)? {
        Ok(Exit::Continue(F::NEW_FLOW))
    } else if may_be_reply && packet.segment.goes_on() && resume::may_be_known_elsewhere(tables, tuple) {
        resume::prepare(tables, packet).map(Exit::Continue)
    } else {
        Err(Reason::NotService)
    }
}

/// Returns `reason` if the packet's destination is a listen or source address of a service. Other packets are passed to
/// the host.
#[inline(always)]
fn if_ours<F: Family>(maps: &impl Maps, ip: &Ip<F>, reason: Reason) -> Reason {
    let listens = |protocol: u8| {
        let key = ServiceKey::new(F::to_key(ip.destination), Be16::new(0), protocol);
        maps.service(&key).is_some()
    };
    // The protocol after an extension header is unknown without walking the headers: a service of either protocol counts.
    let is_ours = if F::hides_transport(ip.protocol).is_some() {
        listens(parse::TCP) || listens(parse::UDP)
    } else {
        listens(ip.protocol)
    };
    if is_ours { reason } else { Reason::NotService }
}
