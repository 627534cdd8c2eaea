//! IPv4 and IPv6 behind one path.

use lb_common::{
    flow::{Deltas, Record, Shape},
    limits::{LEAST_MTU4, LEAST_MTU6},
    net::{Address, Ports, Protocol, V4, V6},
    service::Filter,
    settings::Settings,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    packet::checksum::{Difference, ONE_HOP},
    packet::frame::Header,
    packet::headers::Icmp,
    table::hash::{self, Keys},
};

/// What differs between IPv4 and IPv6.
pub trait Family: Copy + 'static {
    /// An address as it lies in a packet.
    type Address: Copy + PartialEq + core::fmt::Debug + 'static;
    /// The rest of a record's last line.
    type Spare: 'static;
    /// The IP header.
    type Header: Header;

    /// The keyed hash of a tuple.
    fn hash(keys: &Keys, tuple: &Tuple<Self>) -> u64
    where
        Self: Sized;
    /// The size of this family's table.
    fn shape(settings: &Settings) -> Shape;
    /// As maps of both families keep it.
    fn to_key(address: Self::Address) -> Address;
    /// From a map of both families.
    fn from_key(address: Address) -> Self::Address;
    /// As the filter folds it.
    fn fold(address: Self::Address) -> u32;
    /// An address changes.
    fn change(difference: Difference, old: Self::Address, new: Self::Address) -> Difference;
    /// Writes both addresses, one hop less, and what the header's own checksum makes of that.
    fn rewrite(header: &mut Self::Header, source: Self::Address, destination: Self::Address, ip: Difference);
    /// The addresses of a header.
    fn addresses(header: &Self::Header) -> (Self::Address, Self::Address);
    /// Hops left.
    fn hops(header: &Self::Header) -> u8;
    /// Is this kind of ICMP message an error, which quotes the packet that it is about?
    fn is_error(kind: u8) -> bool;
    /// Does an error ask for smaller packets than any link does?
    fn starves(error: &Icmp) -> bool;
    /// What a quoted header is followed by: bytes of options, and the protocol. `None`: no ports follow.
    fn quoted(header: &Self::Header) -> Option<(usize, Protocol)>;
    /// Writes the addresses of a quoted header, which differ by `change`. Returns the difference to a checksum over
    /// all of it.
    fn requote(
        header: &mut Self::Header,
        source: Self::Address,
        destination: Self::Address,
        change: Difference,
    ) -> Difference;
    /// The difference to an ICMP checksum when the outer addresses change by `outer`.
    fn pseudo_header(outer: Difference) -> Difference;
}

/// A record of this family.
pub type RecordOf<F> = Record<<F as Family>::Address, <F as Family>::Spare>;

/// What tells flows apart, as it lies in one packet. No padding: it crosses calls that the verifier reads as bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuple<F: Family> {
    /// From.
    pub source: F::Address,
    /// To.
    pub destination: F::Address,
    /// From and to.
    pub ports: Ports,
    /// The IP protocol number.
    pub protocol: u32,
}

impl<F: Family> Tuple<F> {
    /// The same flow as a packet in the other direction has it.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ports: self.ports.reversed(),
            protocol: self.protocol,
        }
    }
}

/// The checksum differences of turning `from` into `to`.
#[inline(always)]
pub fn deltas<F: Family>(from: &Tuple<F>, to: &Tuple<F>) -> Deltas {
    let source = F::change(Difference::NONE, from.source, to.source);
    let ip = F::change(source, from.destination, to.destination);
    let l4 = ip.double(from.ports.raw(), to.ports.raw());
    Deltas { ip: ip.folded(), l4: l4.folded() }
}

impl Family for V4 {
    type Address = V4;
    type Spare = [u32; 0];
    type Header = Ipv4Hdr;

    #[inline(always)]
    fn hash(keys: &Keys, tuple: &Tuple<V4>) -> u64 {
        hash::v4(keys, tuple.source, tuple.destination, tuple.ports, tuple.protocol as u8)
    }

    #[inline(always)]
    fn shape(settings: &Settings) -> Shape {
        settings.shape4
    }

    #[inline(always)]
    fn to_key(address: V4) -> Address {
        Address::v4(address)
    }

    #[inline(always)]
    fn from_key(address: Address) -> V4 {
        address.as_v4()
    }

    #[inline(always)]
    fn fold(address: V4) -> u32 {
        address.0
    }

    #[inline(always)]
    fn change(difference: Difference, old: V4, new: V4) -> Difference {
        difference.v4(old, new)
    }

    #[inline(always)]
    fn rewrite(header: &mut Ipv4Hdr, source: V4, destination: V4, ip: Difference) {
        header.ttl = header.ttl.wrapping_sub(1);
        header.check = ip.and(ONE_HOP).update(header.check);
        header.src_addr = source.to_bytes();
        header.dst_addr = destination.to_bytes();
    }

    #[inline(always)]
    fn addresses(header: &Ipv4Hdr) -> (V4, V4) {
        (V4::from_bytes(header.src_addr), V4::from_bytes(header.dst_addr))
    }

    #[inline(always)]
    fn hops(header: &Ipv4Hdr) -> u8 {
        header.ttl
    }

    /// Destination unreachable, time exceeded, parameter problem (RFC 792).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    /// Fragmentation needed (RFC 1191, 4), below Linux's `net.ipv4.route.min_pmtu`. Zero is what a router says that
    /// knows no MTU (RFC 1191, 5).
    #[inline(always)]
    fn starves(error: &Icmp) -> bool {
        let [_, _, mtu @ ..] = error.rest;
        error.kind == 3 && error.code == 4 && (1..LEAST_MTU4).contains(&u16::from_be_bytes(mtu))
    }

    #[inline(always)]
    fn quoted(header: &Ipv4Hdr) -> Option<(usize, Protocol)> {
        let length = usize::from(header.vihl & 0x0f) * 4;
        let offset = u16::from_be_bytes(header.frags) & 0x1fff;
        if header.vihl >> 4 != 4 || length < 20 || offset != 0 {
            return None;
        }
        Some((length - 20, Protocol::from_number(header.proto)?))
    }

    #[inline(always)]
    fn requote(header: &mut Ipv4Hdr, source: V4, destination: V4, change: Difference) -> Difference {
        let old = header.check;
        header.check = change.update(old);
        header.src_addr = source.to_bytes();
        header.dst_addr = destination.to_bytes();
        change.word(u16::from_ne_bytes(old), u16::from_ne_bytes(header.check))
    }

    /// ICMP has none (RFC 792).
    #[inline(always)]
    fn pseudo_header(_outer: Difference) -> Difference {
        Difference::NONE
    }
}

impl Family for V6 {
    type Address = V6;
    type Spare = [u32; 4];
    type Header = Ipv6Hdr;

    #[inline(always)]
    fn hash(keys: &Keys, tuple: &Tuple<V6>) -> u64 {
        hash::v6(keys, tuple.source, tuple.destination, tuple.ports, tuple.protocol as u8)
    }

    #[inline(always)]
    fn shape(settings: &Settings) -> Shape {
        settings.shape6
    }

    #[inline(always)]
    fn to_key(address: V6) -> Address {
        Address::v6(address)
    }

    #[inline(always)]
    fn from_key(address: Address) -> V6 {
        address.as_v6()
    }

    #[inline(always)]
    fn fold(address: V6) -> u32 {
        Filter::fold_v6(address.0, address.1)
    }

    #[inline(always)]
    fn change(difference: Difference, old: V6, new: V6) -> Difference {
        difference.v6(old, new)
    }

    /// IPv6 headers have no checksum.
    #[inline(always)]
    fn rewrite(header: &mut Ipv6Hdr, source: V6, destination: V6, _ip: Difference) {
        header.hop_limit = header.hop_limit.wrapping_sub(1);
        header.src_addr = source.to_bytes();
        header.dst_addr = destination.to_bytes();
    }

    #[inline(always)]
    fn addresses(header: &Ipv6Hdr) -> (V6, V6) {
        (V6::from_bytes(header.src_addr), V6::from_bytes(header.dst_addr))
    }

    #[inline(always)]
    fn hops(header: &Ipv6Hdr) -> u8 {
        header.hop_limit
    }

    /// Error messages have the high bit clear (RFC 4443, 2.1).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        kind < 128
    }

    /// Packet too big, below the least MTU of IPv6 (RFC 8201, 4).
    #[inline(always)]
    fn starves(error: &Icmp) -> bool {
        error.kind == 2 && u32::from_be_bytes(error.rest) < LEAST_MTU6
    }

    #[inline(always)]
    fn quoted(header: &Ipv6Hdr) -> Option<(usize, Protocol)> {
        if header.vcf[0] >> 4 != 6 {
            return None;
        }
        Some((0, Protocol::from_number(header.next_hdr)?))
    }

    #[inline(always)]
    fn requote(header: &mut Ipv6Hdr, source: V6, destination: V6, change: Difference) -> Difference {
        header.src_addr = source.to_bytes();
        header.dst_addr = destination.to_bytes();
        change
    }

    /// ICMPv6 has one (RFC 4443, 2.3).
    #[inline(always)]
    fn pseudo_header(outer: Difference) -> Difference {
        outer
    }
}
