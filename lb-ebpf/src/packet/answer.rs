//! What answers to refused packets have in common: each is a packet of xlb's own, and comes from the address that the
//! client sent to.

use lb_common::net::{V4, V6};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{family::Family, packet::checksum::Sum};

/// The hop limit (TTL) of answers: the default of Linux.
const HOPS: u8 = 64;

/// The addresses and the content of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<F: Family> {
    /// The address that the client sent to.
    pub source: F::Address,
    /// The client's address.
    pub destination: F::Address,
    /// The IP protocol number.
    pub protocol: u8,
    /// Bytes after the IP header.
    pub payload: u16,
}

/// A family's IP header of an answer.
pub trait AnswerFamily: Family {
    /// Type and code of "port unreachable" (RFC 792; RFC 4443, 3.1).
    const PORT_UNREACHABLE: [u8; 2];

    /// Writes a header without options, of a packet that must not be fragmented.
    fn write(header: &mut Self::Header, envelope: &Envelope<Self>)
    where
        Self: Sized;
    /// The sum of the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1).
    fn pseudo_header(envelope: &Envelope<Self>) -> Sum
    where
        Self: Sized;
    /// The sum of the pseudo header of an ICMP message.
    fn icmp_pseudo_header(envelope: &Envelope<Self>) -> Sum
    where
        Self: Sized;
    /// Can it be the address of one station: not a group, not unspecified, not loopback (RFC 1122, 3.2.1.3; RFC 4443, 2.4)?
    fn is_of_station(address: Self::Address) -> bool;
}

impl AnswerFamily for V4 {
    const PORT_UNREACHABLE: [u8; 2] = [3, 3];

    #[inline(always)]
    fn write(header: &mut Ipv4Hdr, envelope: &Envelope<V4>) {
        const NO_OPTIONS: u8 = 0x45;
        const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
        let Envelope { source, destination, protocol, payload } = *envelope;
        let length = (size_of::<Ipv4Hdr>() as u16 + payload).to_be_bytes();
        let sum = Sum::EMPTY.word([NO_OPTIONS, 0]).word(length).word(DONT_FRAGMENT).word([HOPS, protocol]);
        (header.vihl, header.tos, header.tot_len) = (NO_OPTIONS, 0, length);
        (header.id, header.frags) = ([0; 2], DONT_FRAGMENT);
        (header.ttl, header.proto, header.check) =
            (HOPS, protocol, sum.v4(source).v4(destination).checksum());
        (header.src_addr, header.dst_addr) = (source.to_bytes(), destination.to_bytes());
    }

    #[inline(always)]
    fn pseudo_header(envelope: &Envelope<V4>) -> Sum {
        let Envelope { source, destination, protocol, payload } = *envelope;
        Sum::EMPTY.v4(source).v4(destination).word([0, protocol]).word(payload.to_be_bytes())
    }

    /// ICMP has none (RFC 792).
    #[inline(always)]
    fn icmp_pseudo_header(_envelope: &Envelope<V4>) -> Sum {
        Sum::EMPTY
    }

    #[inline(always)]
    fn is_of_station(address: V4) -> bool {
        let [first, ..] = address.to_bytes();
        !matches!(first, 0 | 127 | 224..)
    }
}

impl AnswerFamily for V6 {
    const PORT_UNREACHABLE: [u8; 2] = [1, 4];

    #[inline(always)]
    fn write(header: &mut Ipv6Hdr, envelope: &Envelope<V6>) {
        let Envelope { source, destination, protocol, payload } = *envelope;
        (header.vcf, header.payload_len) = ([0x60, 0, 0, 0], payload.to_be_bytes());
        (header.next_hdr, header.hop_limit) = (protocol, HOPS);
        (header.src_addr, header.dst_addr) = (source.to_bytes(), destination.to_bytes());
    }

    #[inline(always)]
    fn pseudo_header(envelope: &Envelope<V6>) -> Sum {
        let Envelope { source, destination, protocol, payload } = *envelope;
        Sum::EMPTY.v6(source).v6(destination).word([0, protocol]).word(payload.to_be_bytes())
    }

    #[inline(always)]
    fn icmp_pseudo_header(envelope: &Envelope<V6>) -> Sum {
        Self::pseudo_header(envelope)
    }

    #[inline(always)]
    fn is_of_station(address: V6) -> bool {
        const GROUP: u8 = 0xff;
        let [first, ..] = address.to_bytes();
        first != GROUP && !(address.0 == 0 && u64::from_be(address.1) <= 1)
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn groups_loopback_and_the_unspecified_address_are_of_no_station() {
        let v4 = |text: &str| V4::is_of_station(V4::from_bytes(text.parse::<Ipv4Addr>().unwrap().octets()));
        let v6 = |text: &str| V6::is_of_station(V6::from_bytes(text.parse::<Ipv6Addr>().unwrap().octets()));

        for address in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.2.3", "255.255.255.255"] {
            assert!(!v4(address), "{address}");
        }
        for address in ["::", "::1", "ff02::1", "ff0e::7"] {
            assert!(!v6(address), "{address}");
        }
        assert!(v4("198.51.100.7") && v4("223.255.255.255") && v4("1.0.0.0"));
        assert!(v6("2001:db8::1") && v6("fe80::1") && v6("::2") && v6("0:0:0:1::"));
    }
}
