//! IPv4 and IPv6 behind one path.

use lb_common::{
    flow::{Deltas, Record, Shape},
    net::{Address, Be16, Ports, V4, V6},
    reason::Reason,
    service::Filter,
    settings::Settings,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    packet::checksum::{Difference, Folded, ONE_HOP},
    packet::frame::Header,
    packet::headers::Ethernet,
    packet::parse::{self, Ip},
    table::hash::{self, Keys},
};

/// What differs between IPv4 and IPv6.
pub trait Family: Copy + PartialEq + core::fmt::Debug + 'static {
    /// An address as it is in a packet.
    type Address: Copy + PartialEq + core::fmt::Debug + 'static;
    /// The rest of a record's last cache line.
    type Spare: 'static;
    /// The IP header.
    type Header: Header;
    /// Is it IPv6?
    const IS_V6: bool;
    /// The number of this family's ICMP.
    const ICMP: u8;
    /// The Ethernet header's number of this family.
    const ETHERTYPE: Be16;

    /// The keyed hash of a tuple.
    fn hash(keys: &Keys, tuple: &Tuple<Self>) -> u64
    where
        Self: Sized;
    /// The size of this family's table.
    fn shape(settings: &Settings) -> Shape;
    /// Converts to the form that maps of both families use.
    fn to_key(address: Self::Address) -> Address;
    /// Converts from the form that maps of both families use.
    fn from_key(address: Address) -> Self::Address;
    /// Folds an address for the prefilter.
    fn fold(address: Self::Address) -> u32;
    /// Adds the change of an address to a checksum difference.
    fn change(difference: Difference, old: Self::Address, new: Self::Address) -> Difference;
    /// Reads a header.
    fn parse(header: &Self::Header) -> Ip<Self>
    where
        Self: Sized;
    /// The reason to drop a packet in which a header with this number precedes TCP or UDP: an IPv6 fragment or
    /// extension header.
    fn hides_transport(protocol: u8) -> Option<Reason>;
    /// Writes both addresses, decrements the hop limit, and updates the header's own checksum.
    fn rewrite(header: &mut Self::Header, source: Self::Address, destination: Self::Address, ip: Folded);
}

/// A record of this family.
pub type RecordOf<F> = Record<<F as Family>::Address, <F as Family>::Spare>;

/// The addresses, ports and protocol of a packet, which identify its flow. No padding, because the verifier tracks it as
/// bytes across calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuple<F: Family> {
    /// Source address.
    pub source: F::Address,
    /// Destination address.
    pub destination: F::Address,
    /// Source and destination port.
    pub ports: Ports,
    /// The IP protocol number.
    pub protocol: u32,
}

impl<F: Family> Tuple<F> {
    /// The tuple of a packet in the other direction.
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

/// The checksum differences when `from` becomes `to`.
#[inline(always)]
pub fn deltas<F: Family>(from: &Tuple<F>, to: &Tuple<F>) -> Deltas {
    let source = F::change(Difference::NONE, from.source, to.source);
    let ip = F::change(source, from.destination, to.destination);
    let l4 = ip.double(from.ports.raw(), to.ports.raw());
    Deltas { ip: ip.folded().0, l4: l4.folded().0 }
}

impl Family for V4 {
    type Address = V4;
    type Spare = [u32; 0];
    type Header = Ipv4Hdr;
    const IS_V6: bool = false;
    const ICMP: u8 = 1;
    const ETHERTYPE: Be16 = Ethernet::IPV4;

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
    fn parse(header: &Ipv4Hdr) -> Ip<V4> {
        let length = u32::from(header.vihl & 0x0f) * 4;
        Ip {
            source: V4::from_bytes(header.src_addr),
            destination: V4::from_bytes(header.dst_addr),
            protocol: header.proto,
            hops: header.ttl,
            header: length,
            length: u32::from(u16::from_be_bytes(header.tot_len)),
            fragment: u16::from_be_bytes(header.frags) & parse::FRAGMENT,
            is_header: header.vihl >> 4 == 4 && length >= size_of::<Ipv4Hdr>() as u32,
        }
    }

    #[inline(always)]
    fn hides_transport(_protocol: u8) -> Option<Reason> {
        None
    }

    #[inline(always)]
    fn rewrite(header: &mut Ipv4Hdr, source: V4, destination: V4, ip: Folded) {
        header.ttl = header.ttl.wrapping_sub(1);
        header.check = ip.and(ONE_HOP).update(header.check);
        header.src_addr = source.to_bytes();
        header.dst_addr = destination.to_bytes();
    }
}

impl Family for V6 {
    type Address = V6;
    type Spare = [u32; 4];
    type Header = Ipv6Hdr;
    const IS_V6: bool = true;
    const ICMP: u8 = 58;
    const ETHERTYPE: Be16 = Ethernet::IPV6;

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

    #[inline(always)]
    fn parse(header: &Ipv6Hdr) -> Ip<V6> {
        let length = size_of::<Ipv6Hdr>() as u32;
        Ip {
            source: V6::from_bytes(header.src_addr),
            destination: V6::from_bytes(header.dst_addr),
            protocol: header.next_hdr,
            hops: header.hop_limit,
            header: length,
            length: length + u32::from(u16::from_be_bytes(header.payload_len)),
            fragment: 0,
            is_header: header.vcf[0] >> 4 == 6,
        }
    }

    /// RFC 8200, 4: hop-by-hop options, routing, fragment, authentication, destination options.
    #[inline(always)]
    fn hides_transport(protocol: u8) -> Option<Reason> {
        match protocol {
            44 => Some(Reason::Fragment),
            0 | 43 | 51 | 60 => Some(Reason::ExtensionHeader),
            _ => None,
        }
    }

    /// IPv6 headers have no checksum.
    #[inline(always)]
    fn rewrite(header: &mut Ipv6Hdr, source: V6, destination: V6, _ip: Folded) {
        header.hop_limit = header.hop_limit.wrapping_sub(1);
        header.src_addr = source.to_bytes();
        header.dst_addr = destination.to_bytes();
    }
}
