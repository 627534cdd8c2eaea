//! Writing what a packet becomes.

use lb_common::{flow::Deltas, hop::Hop, net::Protocol, reason::Reason};

use crate::{
    family::{Family, Tuple},
    packet::checksum::Difference,
    packet::headers::Ethernet,
    packet::parse::Packet,
};

/// A packet's new addresses, ports and next hop.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<F: Family> {
    /// What the tuple becomes.
    pub tuple: Tuple<F>,
    /// The difference that this makes to the IPv4 header's checksum.
    pub ip: Difference,
    /// The difference that this makes to the TCP or UDP checksum.
    pub l4: Difference,
    /// Where it goes.
    pub hop: Hop,
}

impl<F: Family> Rewrite<F> {
    /// A request's rewrite.
    #[inline(always)]
    pub fn request(tuple: Tuple<F>, deltas: Deltas, hop: Hop) -> Self {
        let (ip, l4) = (Difference::from_folded(deltas.ip), Difference::from_folded(deltas.l4));
        Self { tuple, ip, l4, hop }
    }

    /// A reply's rewrite undoes the request's.
    #[inline(always)]
    pub fn reply(tuple: Tuple<F>, deltas: Deltas, hop: Hop) -> Self {
        let (ip, l4) = (Difference::from_folded(!deltas.ip), Difference::from_folded(!deltas.l4));
        Self { tuple, ip, l4, hop }
    }
}

/// Rewrites a packet and says where it leaves, or refuses before a byte is changed.
#[inline(always)]
pub fn apply<F: Family>(packet: Packet<'_, F>, rewrite: &Rewrite<F>) -> Result<u32, Reason> {
    if F::hops(packet.ip) <= 1 {
        return Err(Reason::TtlExpired);
    }
    if packet.length > rewrite.hop.mtu {
        return Err(does_not_fit(&rewrite.hop));
    }
    Ethernet::set(&mut packet.ethernet.destination, rewrite.hop.destination);
    Ethernet::set(&mut packet.ethernet.source, rewrite.hop.source);
    F::rewrite(packet.ip, rewrite.tuple.source, rewrite.tuple.destination, rewrite.ip);
    *packet.checksum = if packet.protocol == Protocol::Udp {
        rewrite.l4.update_udp(*packet.checksum)
    } else {
        rewrite.l4.update(*packet.checksum)
    };
    *packet.source_port = rewrite.tuple.ports.source().to_bytes();
    *packet.destination_port = rewrite.tuple.ports.destination().to_bytes();
    Ok(rewrite.hop.interface)
}

/// A next hop that is not resolved has an MTU of 0, so that packets of known flows pay for no second comparison.
#[inline(always)]
const fn does_not_fit(hop: &Hop) -> Reason {
    if hop.interface == 0 { Reason::NoBackendNeighbour } else { Reason::TooBig }
}
