//! What differs between ICMP and ICMPv6 errors.

use lb_common::{
    limits::{LEAST_MTU4, LEAST_MTU6},
    net::{V4, V6},
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    family::Family,
    packet::{checksum::Difference, headers::Icmp},
};

/// A family's error messages.
pub trait IcmpFamily: Family {
    /// Is a message of this type an error, which quotes the packet that caused it?
    fn is_error(kind: u8) -> bool;
    /// Does an error report an MTU below the family's minimum?
    fn mtu_below_minimum(error: &Icmp) -> bool;
    /// Writes the addresses of a quoted header, which differ by `change`. Returns the difference to a checksum over the
    /// whole header.
    fn requote(
        header: &mut Self::Header,
        source: Self::Address,
        destination: Self::Address,
        change: Difference,
    ) -> Difference;
    /// The difference to an ICMP checksum when the outer addresses change by `outer`.
    fn pseudo_header(outer: Difference) -> Difference;
}

impl IcmpFamily for V4 {
    /// Destination unreachable, time exceeded, parameter problem (RFC 792).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    /// Fragmentation needed (RFC 1191, 4), below Linux's `net.ipv4.route.min_pmtu`. A router that does not report an
    /// MTU sends zero (RFC 1191, 5).
    #[inline(always)]
    fn mtu_below_minimum(error: &Icmp) -> bool {
        let [_, _, mtu @ ..] = error.rest;
        error.kind == 3 && error.code == 4 && (1..LEAST_MTU4).contains(&u16::from_be_bytes(mtu))
    }

    #[inline(always)]
    fn requote(header: &mut Ipv4Hdr, source: V4, destination: V4, change: Difference) -> Difference {
        let old = header.check;
        header.check = change.update(old);
        header.src_addr = source.to_bytes();
        header.dst_addr = destination.to_bytes();
        change.word(u16::from_ne_bytes(old), u16::from_ne_bytes(header.check))
    }

    /// ICMP has no pseudo-header (RFC 792).
    #[inline(always)]
    fn pseudo_header(_outer: Difference) -> Difference {
        Difference::NONE
    }
}

impl IcmpFamily for V6 {
    /// Error messages have the high bit clear (RFC 4443, 2.1).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        kind < 128
    }

    /// Packet too big, below the minimum MTU of IPv6 (RFC 8201, 4).
    #[inline(always)]
    fn mtu_below_minimum(error: &Icmp) -> bool {
        error.kind == 2 && u32::from_be_bytes(error.rest) < LEAST_MTU6
    }

    #[inline(always)]
    fn requote(header: &mut Ipv6Hdr, source: V6, destination: V6, change: Difference) -> Difference {
        header.src_addr = source.to_bytes();
        header.dst_addr = destination.to_bytes();
        change
    }

    /// The pseudo-header of ICMPv6 (RFC 4443, 2.3).
    #[inline(always)]
    fn pseudo_header(outer: Difference) -> Difference {
        outer
    }
}
