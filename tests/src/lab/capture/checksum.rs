//! Recomputes the checksums of a frame (RFC 1071), with code that the packet core does not share.

use std::fmt;

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Which checksum is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// That of the IPv4 header; the IPv6 header has none.
    Ipv4Header,
    /// That of this protocol.
    Payload(u8),
    /// The packet is shorter than its headers say.
    Length,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4Header => f.write_str("wrong IPv4 header checksum"),
            Self::Payload(protocol) => write!(f, "wrong checksum of protocol {protocol}"),
            Self::Length => f.write_str("shorter than it says"),
        }
    }
}

/// `None`: this frame has no checksum that could be verified.
pub fn verify(frame: &[u8]) -> Option<Result<(), Wrong>> {
    let packet = frame.get(ETHERNET_LEN..)?;
    match (frame[12], frame[13]) {
        (0x08, 0x00) => verify_ipv4(packet),
        (0x86, 0xdd) => verify_ipv6(packet),
        _ => None,
    }
}

fn verify_ipv4(packet: &[u8]) -> Option<Result<(), Wrong>> {
    let header_len = usize::from(*packet.first()? & 0xf) * 4;
    let total_len = usize::from(be16(packet, 2)?);
    let (Some(header), Some(payload)) = (packet.get(..header_len), packet.get(header_len..total_len)) else {
        return Some(Err(Wrong::Length));
    };
    if fold(sum(header)) != 0xffff {
        return Some(Err(Wrong::Ipv4Header));
    }
    let is_fragment = be16(packet, 6)? & 0x3fff != 0;
    if is_fragment {
        return None;
    }
    match *packet.get(9)? {
        ICMP => Some(judge(sum(payload), ICMP)),
        // RFC 768: zero means that the sender left the checksum out.
        UDP if be16(payload, 6)? == 0 => None,
        protocol @ (TCP | UDP) => {
            Some(judge(sum(&header[12..20]) + pseudo(protocol, payload.len()) + sum(payload), protocol))
        }
        _ => None,
    }
}

fn verify_ipv6(packet: &[u8]) -> Option<Result<(), Wrong>> {
    let payload_len = usize::from(be16(packet, 4)?);
    let Some(payload) = packet.get(IPV6_LEN..IPV6_LEN + payload_len) else {
        return Some(Err(Wrong::Length));
    };
    match packet[6] {
        // RFC 8200, 8.1: over IPv6 a UDP checksum is not optional.
        UDP if be16(payload, 6)? == 0 => Some(Err(Wrong::Payload(UDP))),
        protocol @ (TCP | UDP | ICMPV6) => {
            let addresses = sum(&packet[8..IPV6_LEN]);
            Some(judge(addresses + pseudo(protocol, payload.len()) + sum(payload), protocol))
        }
        _ => None,
    }
}

fn judge(sum: u64, protocol: u8) -> Result<(), Wrong> {
    if fold(sum) == 0xffff { Ok(()) } else { Err(Wrong::Payload(protocol)) }
}

/// The pseudo header without its addresses.
fn pseudo(protocol: u8, len: usize) -> u64 {
    u64::from(protocol) + len as u64
}

fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or_default());
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "ping" from 192.0.2.1:1234 to 192.0.2.2:53.
    const UDP_OVER_IPV4: [u8; 46] = [
        0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0xb6, 0xc9, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4
        0x04, 0xd2, 0, 53, 0, 12, 0x97, 0xfa, b'p', b'i', b'n', b'g', // UDP
    ];

    #[test]
    fn accepts_a_good_frame() {
        assert_eq!(verify(&UDP_OVER_IPV4), Some(Ok(())));
    }

    #[test]
    fn notices_every_single_flipped_bit_behind_the_ethernet_header() {
        for bit in ETHERNET_LEN * 8..UDP_OVER_IPV4.len() * 8 {
            let mut frame = UDP_OVER_IPV4;
            frame[bit / 8] ^= 1 << (bit % 8);

            assert_ne!(verify(&frame), Some(Ok(())), "bit {bit}");
        }
    }

    #[test]
    fn does_not_read_beyond_a_cut_frame() {
        for len in 0..UDP_OVER_IPV4.len() {
            assert_ne!(verify(&UDP_OVER_IPV4[..len]), Some(Ok(())), "{len} bytes");
        }
    }
}
