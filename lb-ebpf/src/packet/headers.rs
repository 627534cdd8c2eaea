//! The headers that packets are made of.

use lb_common::net::{Be16, Mac};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::packet::frame::Header;

/// An Ethernet header, with addresses as halfwords in disguise: see [`Mac`].
#[repr(C)]
#[derive(Debug)]
pub struct Ethernet {
    /// To whom.
    pub destination: [[u8; 2]; 3],
    /// From whom.
    pub source: [[u8; 2]; 3],
    /// What follows.
    pub ethertype: [u8; 2],
}

impl Ethernet {
    /// IPv4 follows.
    pub const IPV4: Be16 = Be16::new(0x0800);
    /// IPv6 follows.
    pub const IPV6: Be16 = Be16::new(0x86dd);

    /// Is the frame for this address? Compared halfword by halfword: a comparison of six bytes is a call on the BPF
    /// target.
    #[inline(always)]
    pub fn is_to(&self, mac: Mac) -> bool {
        let differences = |place: usize| u16::from_ne_bytes(self.destination[place]) ^ mac.0[place];
        differences(0) | differences(1) | differences(2) == 0
    }

    /// Who sent the frame.
    #[inline(always)]
    pub fn sender(&self) -> Mac {
        Mac(self.source.map(u16::from_ne_bytes))
    }

    /// Writes an address halfword by halfword: a copy of six bytes is a call on the BPF target.
    #[inline(always)]
    pub fn set(field: &mut [[u8; 2]; 3], mac: Mac) {
        let [a, b, c] = mac.0;
        field[0] = a.to_ne_bytes();
        field[1] = b.to_ne_bytes();
        field[2] = c.to_ne_bytes();
    }
}

/// A TCP header (RFC 9293, 3.1), with offset and flags as the bytes they are.
#[repr(C)]
#[derive(Debug)]
pub struct Tcp {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
    /// Sequence number.
    pub sequence: [u8; 4],
    /// Acknowledgement number.
    pub acknowledgement: [u8; 4],
    /// The header's length in words, in the upper half.
    pub offset: u8,
    /// CWR to FIN.
    pub flags: u8,
    /// Receive window.
    pub window: [u8; 2],
    /// Over pseudo header, header and data.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: [u8; 2],
}

/// The part that ICMP and ICMPv6 errors have in common (RFC 792, RFC 4443).
#[repr(C)]
#[derive(Debug)]
pub struct Icmp {
    /// What kind.
    pub kind: u8,
    /// Which of that kind.
    pub code: u8,
    /// Over the whole message (ICMPv6: and a pseudo header).
    pub checksum: [u8; 2],
    /// The next hop's MTU, a pointer, or nothing.
    pub rest: [u8; 4],
}

/// The first eight bytes of TCP or UDP, which is all that an ICMP error has to quote.
#[repr(C)]
#[derive(Debug)]
pub struct Quoted {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
    /// UDP: the length. TCP: a part of the sequence number.
    pub length: [u8; 2],
    /// UDP: the checksum. TCP: a part of the sequence number.
    pub checksum: [u8; 2],
}

/// What follows the first eight bytes of TCP, up to and with the checksum, where an ICMP error quotes so much.
#[repr(C)]
#[derive(Debug)]
pub struct QuotedTcp {
    /// Acknowledgement, offset, flags, window.
    pub skipped: [u8; 8],
    /// The checksum.
    pub checksum: [u8; 2],
}

// SAFETY: all fields of all these are bytes or byte arrays.
unsafe impl Header for Ethernet {}
// SAFETY: as above.
unsafe impl Header for Ipv4Hdr {}
// SAFETY: as above.
unsafe impl Header for Ipv6Hdr {}
// SAFETY: as above.
unsafe impl Header for Tcp {}
// SAFETY: as above.
unsafe impl Header for UdpHdr {}
// SAFETY: as above.
unsafe impl Header for Icmp {}
// SAFETY: as above.
unsafe impl Header for Quoted {}
// SAFETY: as above.
unsafe impl Header for QuotedTcp {}

const _: () = {
    assert!(size_of::<Ethernet>() == 14 && align_of::<Ethernet>() == 1);
    assert!(size_of::<Ipv4Hdr>() == 20 && align_of::<Ipv4Hdr>() == 1);
    assert!(size_of::<Ipv6Hdr>() == 40 && align_of::<Ipv6Hdr>() == 1);
    assert!(size_of::<Tcp>() == 20 && align_of::<Tcp>() == 1);
    assert!(size_of::<UdpHdr>() == 8 && align_of::<UdpHdr>() == 1);
    assert!(size_of::<Icmp>() == 8 && align_of::<Icmp>() == 1);
};
