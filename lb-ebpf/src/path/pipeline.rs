//! A packet's way through the program.

use lb_common::{
    net::{Be16, V4, V6},
    reason::Reason,
    service::{Filter, ServiceKey},
};

use crate::{
    family::Family,
    packet::{
        frame::Frame,
        headers::Ethernet,
        icmp::IcmpFamily,
        parse::{self, Ip, Packet},
        rewrite,
    },
    path::{icmp, reply, request},
    steps::{Steps, Tables},
    storage::{Maps, may_be},
};

/// What becomes of a packet. Every packet gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Out of the interface that it came in by.
    Transmit,
    /// Out of the interface with this index.
    Redirect(u32),
    /// Not forwarded: the reason says whether it is passed or dropped.
    Refused(Reason),
}

/// Decides on a packet, and rewrites it if it is forwarded.
#[inline(always)]
pub fn run(frame: &mut impl Frame, tables: &impl Tables) -> Verdict {
    let ingress = frame.ingress();
    match forward(frame, tables) {
        Ok(egress) if egress == ingress => Verdict::Transmit,
        Ok(egress) => Verdict::Redirect(egress),
        Err(reason) => Verdict::Refused(reason),
    }
}

#[inline(always)]
fn forward(frame: &mut impl Frame, tables: &impl Tables) -> Result<u32, Reason> {
    let ethertype = parse::ethertype(&mut frame.cursor())?;
    if ethertype == Ethernet::IPV4 {
        forward_ip::<V4>(frame, tables)
    } else if ethertype == Ethernet::IPV6 {
        forward_ip::<V6>(frame, tables)
    } else {
        Err(Reason::NotIp)
    }
}

#[inline(always)]
fn forward_ip<F: IcmpFamily>(frame: &mut impl Frame, tables: &impl Steps<F>) -> Result<u32, Reason> {
    let length = frame.length();
    let mut cursor = frame.cursor();
    cursor.take::<Ethernet>()?;
    let available = cursor.remaining();
    let ip = Ip::<F>::parse(&mut cursor)?;
    ip.check(available).map_err(|reason| if_ours(tables, &ip, reason))?;
    if ip.protocol == F::ICMP {
        return icmp::translate(frame, tables, &ip);
    }
    let packet = Packet::parse(&ip, &mut cursor, length).map_err(|reason| if_ours(tables, &ip, reason))?;
    balance(frame, tables, &packet)
}

/// Either direction: the filter tells which one a packet may be.
#[inline(always)]
fn balance<F: Family>(
    frame: &mut impl Frame,
    tables: &impl Steps<F>,
    packet: &Packet<F>,
) -> Result<u32, Reason> {
    let tuple = &packet.tuple;
    let settings = tables.settings().ok_or(Reason::NotService)?;
    if may_be(tables, F::fold(tuple.destination), tuple.ports.destination(), Filter::SERVICE)
        && let Some(request) = request::forward(tables, settings, packet)?
    {
        let sent = rewrite::apply(frame, packet, &request.rewrite);
        match sent {
            Ok(_) => tables.count_forwarded(request.backend.counters, packet.frame),
            Err(_) => tables.count_refused(request.backend.service_counters, packet.frame),
        }
        return sent;
    }
    if may_be(tables, F::fold(tuple.source), tuple.ports.source(), Filter::BACKEND)
        && let Some(reply) = reply::forward(tables, settings, tuple, packet.segment)?
    {
        let egress = rewrite::apply(frame, packet, &reply.rewrite)?;
        tables.count_returned(reply.backend.counters, packet.frame);
        return Ok(egress);
    }
    Err(Reason::NotService)
}

/// The reason, if some port of the packet's destination is a service's; else the packet is the host's to judge.
#[inline(always)]
fn if_ours<F: Family>(maps: &impl Maps, ip: &Ip<F>, reason: Reason) -> Reason {
    let listens = |protocol: u8| {
        let key = ServiceKey::new(F::to_key(ip.destination), Be16::new(0), protocol);
        maps.service(&key).is_some()
    };
    // What follows an extension header is not known without a walk: either protocol makes the address ours.
    let is_ours = if F::hides_transport(ip.protocol).is_some() {
        listens(parse::TCP) || listens(parse::UDP)
    } else {
        listens(ip.protocol)
    };
    if is_ours { reason } else { Reason::NotService }
}
