//! Rewriting a packet for its next hop.

use lb_common::{
    flow::Deltas,
    hop::{Hop, InterfaceIndex},
    net::Protocol,
    reason::Reason,
};
use network_types::udp::UdpHdr;

use crate::{
    family::{Family, Tuple},
    packet::checksum::Folded,
    packet::frame::Frame,
    packet::headers::{Ethernet, Tcp},
    packet::parse::Layout,
};

/// A packet's new addresses, ports and next hop.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<F: Family> {
    /// The new tuple.
    pub tuple: Tuple<F>,
    /// The difference of the IPv4 header's checksum.
    pub ip: Folded,
    /// The difference of the TCP or UDP checksum.
    pub l4: Folded,
    /// The next hop.
    pub hop: Hop,
}

impl<F: Family> Rewrite<F> {
    /// A request's rewrite.
    #[inline(always)]
    pub fn request(tuple: Tuple<F>, deltas: Deltas, hop: Hop) -> Self {
        Self { tuple, ip: Folded(deltas.ip), l4: Folded(deltas.l4), hop }
    }

    /// A reply's rewrite undoes the request's.
    #[inline(always)]
    pub fn reply(tuple: Tuple<F>, deltas: Deltas, hop: Hop) -> Self {
        Self { tuple, ip: Folded(!deltas.ip), l4: Folded(!deltas.l4), hop }
    }
}

/// Rewrites a packet and returns its egress interface, or refuses it unchanged.
#[inline(always)]
pub fn apply<F: Family>(
    frame: &mut impl Frame,
    layout: &Layout,
    rewrite: &Rewrite<F>,
) -> Result<InterfaceIndex, Reason> {
    if layout.hops <= 1 {
        return Err(Reason::TtlExpired);
    }
    if layout.length > rewrite.hop.mtu {
        return Err(does_not_fit(&rewrite.hop));
    }
    let mut cursor = frame.cursor();
    let ethernet = cursor.take::<Ethernet>()?;
    let ip = cursor.take::<F::Header>()?;
    cursor.skip(layout.options as usize);
    let ports = rewrite.tuple.ports;
    if rewrite.tuple.protocol == Protocol::Udp as u32 {
        let udp = cursor.take::<UdpHdr>()?;
        udp.check = rewrite.l4.update_udp(udp.check);
        (udp.src, udp.dst) = (ports.source().to_bytes(), ports.destination().to_bytes());
    } else {
        let tcp = cursor.take::<Tcp>()?;
        tcp.checksum = rewrite.l4.update(tcp.checksum);
        (tcp.source, tcp.destination) = (ports.source().to_bytes(), ports.destination().to_bytes());
    }
    F::rewrite(ip, rewrite.tuple.source, rewrite.tuple.destination, rewrite.ip);
    ethernet.set_addresses(rewrite.hop.destination, rewrite.hop.source);
    Ok(rewrite.hop.interface)
}

/// An unresolved next hop has an MTU of 0, so packets of known flows need no second comparison.
#[inline(always)]
fn does_not_fit(hop: &Hop) -> Reason {
    if hop.interface == InterfaceIndex::NONE { Reason::NoBackendNeighbour } else { Reason::TooBig }
}
