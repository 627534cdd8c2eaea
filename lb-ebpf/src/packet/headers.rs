//! Packet headers.

use lb_common::net::{Be16, Mac};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::packet::{frame::Header, tcp::Segment};

/// An Ethernet header.
#[repr(C)]
#[derive(Debug)]
pub struct Ethernet {
    /// Destination and source address, six bytes each, as three words: on the BPF target, comparing or copying six bytes
    /// is a call.
    addresses: [[u8; 4]; 3],
    /// The protocol of the payload.
    pub ethertype: [u8; 2],
}

impl Ethernet {
    /// IPv4 follows.
    pub const IPV4: Be16 = Be16::new(0x0800);
    /// IPv6 follows.
    pub const IPV6: Be16 = Be16::new(0x86dd);

    /// Is the frame for this address?
    #[inline(always)]
    pub fn is_to(&self, mac: Mac) -> bool {
        let [first, [e, f, ..], _] = self.addresses;
        let [a, b, c] = mac.0;
        u32::from_ne_bytes(first) == word(a, b) && u16::from_ne_bytes([e, f]) == c
    }

    /// The source address.
    #[inline(always)]
    pub fn source(&self) -> Mac {
        let [_, [.., a, b], [c, d, e, f]] = self.addresses;
        Mac::new([a, b, c, d, e, f])
    }

    /// The destination address.
    #[inline(always)]
    pub fn destination(&self) -> Mac {
        let [[a, b, c, d], [e, f, ..], _] = self.addresses;
        Mac::new([a, b, c, d, e, f])
    }

    /// Replaces both addresses.
    #[inline(always)]
    pub fn set_addresses(&mut self, destination: Mac, source: Mac) {
        let ([a, b, c], [d, e, f]) = (destination.0, source.0);
        self.addresses = [word(a, b).to_ne_bytes(), word(c, d).to_ne_bytes(), word(e, f).to_ne_bytes()];
    }
}

/// Two halfwords of a [`Mac`] as one word of the frame.
#[inline(always)]
const fn word(first: u16, second: u16) -> u32 {
    let (low, high) = if cfg!(target_endian = "little") { (first, second) } else { (second, first) };
    low as u32 | (high as u32) << 16
}

/// A TCP header (RFC 9293, 3.1).
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
    /// The flags, CWR to FIN.
    pub flags: u8,
    /// Receive window.
    pub window: [u8; 2],
    /// Checksum over pseudo header, header and data.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: [u8; 2],
}

impl Tcp {
    /// The fields that the flow table uses.
    #[inline(always)]
    pub fn as_segment(&self) -> Segment {
        Segment {
            flags: self.flags,
            sequence: u32::from_be_bytes(self.sequence),
            acknowledgement: u32::from_be_bytes(self.acknowledgement),
        }
    }
}

/// The header that ICMP and ICMPv6 errors share (RFC 792, RFC 4443).
#[repr(C)]
#[derive(Debug)]
pub struct Icmp {
    /// The message type.
    pub kind: u8,
    /// The message code.
    pub code: u8,
    /// Checksum over the whole message (ICMPv6: and a pseudo header).
    pub checksum: [u8; 2],
    /// The next hop's MTU, a pointer, or nothing.
    pub rest: [u8; 4],
}

/// The first eight bytes of TCP or UDP, the minimum that an ICMP error quotes.
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

/// The rest of a quoted TCP header up to and including the checksum, if an ICMP error quotes it.
#[repr(C)]
#[derive(Debug)]
pub struct QuotedTcp {
    /// Acknowledgement, offset, flags, window.
    pub skipped: [u8; 8],
    /// The checksum.
    pub checksum: [u8; 2],
}

/// Four bytes of any header, to sum them.
#[repr(transparent)]
#[derive(Debug)]
pub struct Double(pub [u8; 4]);

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
// SAFETY: as above.
unsafe impl Header for Double {}

const _: () = {
    assert!(size_of::<Ethernet>() == 14 && align_of::<Ethernet>() == 1);
    assert!(size_of::<Ipv4Hdr>() == 20 && align_of::<Ipv4Hdr>() == 1);
    assert!(size_of::<Ipv6Hdr>() == 40 && align_of::<Ipv6Hdr>() == 1);
    assert!(size_of::<Tcp>() == 20 && align_of::<Tcp>() == 1);
    assert!(size_of::<UdpHdr>() == 8 && align_of::<UdpHdr>() == 1);
    assert!(size_of::<Icmp>() == 8 && align_of::<Icmp>() == 1);
};
