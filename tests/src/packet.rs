//! Packets as values: what a row sends, and what it expects to come out.
//!
//! A [`Packet`] is independent of the code under test: its bytes and checksums are built here, from the RFCs. [`read`]
//! verifies and prints what comes back.

pub mod read;
mod wire;

use std::net::{IpAddr, SocketAddr};

use lb_common::net::Protocol;

pub(crate) use self::wire::checksum;

/// The TTL or hop limit of sent packets, unless a row sets another.
pub const HOPS: u8 = 64;
/// The sender's MAC, unless a row sets another.
pub const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 0xfd];
/// Stands for the MAC of the receiving interface, unless a row sets another.
pub const RECEIVER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

/// One Ethernet frame with an IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Packet {
    /// The MAC of the next hop.
    pub to_mac: [u8; 6],
    /// The MAC of the sender on that link.
    pub from_mac: [u8; 6],
    /// Its family decides which header is built.
    pub source: IpAddr,
    /// An address of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// DSCP and ECN, or the traffic class.
    pub class: u8,
    /// IPv4: identification. IPv6: the flow label.
    pub label: u16,
    /// IPv4: flags and fragment offset as they lie in the header.
    pub fragment: u16,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: kind, and a length in units of eight bytes.
    pub extensions: Vec<(u8, usize)>,
    /// Behind all IP headers.
    pub content: Content,
    /// Bytes behind the IP packet: Ethernet's padding.
    pub padding: usize,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Protocol 6.
    Tcp(Tcp),
    /// Protocol 17.
    Udp(Udp),
    /// Protocol 1, or 58 between IPv6 addresses.
    Icmp(Icmp),
    /// Any other protocol.
    Other {
        /// The IP protocol number.
        protocol: u8,
        /// All that is behind the IP headers.
        bytes: Vec<u8>,
    },
}

/// A TCP segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Port.
    pub source: u16,
    /// Port.
    pub destination: u16,
    /// The sequence number of the first byte, or of the SYN or FIN.
    pub sequence: u32,
    /// Sent as it is, with ACK or without.
    pub acknowledgement: u32,
    /// The receive window, not scaled.
    pub window: u16,
    /// The header's byte of flags, as in the constants of `lb_ebpf::packet::tcp`.
    pub flags: u8,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    /// Data, of any length.
    pub payload: Vec<u8>,
}

/// A UDP datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    /// Port.
    pub source: u16,
    /// Port.
    pub destination: u16,
    /// Data, of any length.
    pub payload: Vec<u8>,
    /// IPv4 senders may leave the checksum out (RFC 768).
    pub without_checksum: bool,
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Icmp {
    /// The type, which means something else in each family.
    pub kind: u8,
    /// The code, whose meaning depends on the type.
    pub code: u8,
    /// The four bytes behind the checksum: an MTU, an identifier.
    pub rest: [u8; 4],
    /// Behind the header of eight bytes: an error's is its quote.
    pub payload: Vec<u8>,
}

/// Don't fragment, first and only fragment (RFC 791, 3.1).
pub const DONT_FRAGMENT: u16 = 0x4000;
/// More fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;

impl Packet {
    /// An ordinary packet.
    pub fn new(source: IpAddr, destination: IpAddr, content: Content) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} -> {destination}");
        Self {
            to_mac: RECEIVER,
            from_mac: SENDER,
            source,
            destination,
            hops: HOPS,
            class: 0,
            label: 0x1234,
            fragment: DONT_FRAGMENT,
            options: Vec::new(),
            extensions: Vec::new(),
            content,
            padding: 0,
        }
    }

    /// A TCP segment without data.
    pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> Self {
        let (source, destination) = (from.port(), to.port());
        let tcp = Tcp { source, destination, flags, window: u16::MAX, ..Tcp::default() };
        Self::new(from.ip(), to.ip(), Content::Tcp(tcp))
    }

    /// A UDP datagram.
    pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Self {
        let udp =
            Udp { source: from.port(), destination: to.port(), payload: payload.into(), ..Udp::default() };
        Self::new(from.ip(), to.ip(), Content::Udp(udp))
    }

    /// The first packet of a flow: a SYN, or a datagram.
    pub fn first(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Self {
        match protocol {
            Protocol::Tcp => Self::tcp(from, to, lb_ebpf::packet::tcp::SYN),
            Protocol::Udp => Self::udp(from, to, b"first"),
        }
    }

    /// Changes the packet.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// As an ICMP error quotes it: the IP packet alone, cut after `bytes`.
    pub fn quoted(&self, bytes: usize) -> Vec<u8> {
        let mut quote = self.ip_bytes();
        quote.truncate(bytes);
        quote
    }

    /// Sets its endpoints. ICMP has no ports.
    pub fn readdress(&mut self, from: SocketAddr, to: SocketAddr) {
        (self.source, self.destination) = (from.ip(), to.ip());
        let (source, destination) = match &mut self.content {
            Content::Tcp(tcp) => (&mut tcp.source, &mut tcp.destination),
            Content::Udp(udp) => (&mut udp.source, &mut udp.destination),
            Content::Icmp(_) | Content::Other { .. } => return,
        };
        (*source, *destination) = (from.port(), to.port());
    }

    /// The bytes of data behind all headers.
    pub fn payload_mut(&mut self) -> &mut Vec<u8> {
        match &mut self.content {
            Content::Tcp(tcp) => &mut tcp.payload,
            Content::Udp(udp) => &mut udp.payload,
            Content::Icmp(icmp) => &mut icmp.payload,
            Content::Other { bytes, .. } => bytes,
        }
    }

    /// The TCP header.
    ///
    /// # Panics
    /// If it is not: the row is wrong.
    pub fn tcp_mut(&mut self) -> &mut Tcp {
        match &mut self.content {
            Content::Tcp(tcp) => tcp,
            Content::Udp(_) | Content::Icmp(_) | Content::Other { .. } => panic!("not TCP"),
        }
    }

    /// The TCP flags; 0 if it is not TCP.
    pub fn tcp_flags(&self) -> u8 {
        match &self.content {
            Content::Tcp(tcp) => tcp.flags,
            Content::Udp(_) | Content::Icmp(_) | Content::Other { .. } => 0,
        }
    }

    /// The UDP header.
    ///
    /// # Panics
    /// If it is not: the row is wrong.
    pub fn udp_mut(&mut self) -> &mut Udp {
        match &mut self.content {
            Content::Udp(udp) => udp,
            Content::Tcp(_) | Content::Icmp(_) | Content::Other { .. } => panic!("not UDP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// tcpdump -vv calls these checksums correct, and those of the next test.
    #[test]
    fn a_syn_over_ipv4_has_these_bytes() {
        let syn =
            Packet::tcp(endpoint("198.51.100.7:40000"), endpoint("192.0.2.10:80"), lb_ebpf::packet::tcp::SYN)
                .with(|packet| packet.tcp_mut().sequence = 1000);

        let expected = hex("0200000000fe 0200000000fd 0800
             4500 0028 1234 4000 40 06 3c57 c6336407 c000020a
             9c40 0050 000003e8 00000000 50 02 ffff 2325 0000");
        assert_eq!(syn.to_frame(), expected);
    }

    #[test]
    fn a_datagram_over_ipv6_has_these_bytes() {
        let datagram = Packet::udp(endpoint("[2001:db8:51::7]:40000"), endpoint("[2001:db8::10]:53"), b"hi");

        let expected = hex("0200000000fe 0200000000fd 86dd
             60001234 000a 11 40 20010db8005100000000000000000007 20010db8000000000000000000000010
             9c40 0035 000a 9f21 6869");
        assert_eq!(datagram.to_frame(), expected);
    }

    #[test]
    fn what_is_built_reads_as_right_until_any_covered_byte_changes() {
        let (v4, v6) =
            (["198.51.100.7:40000", "192.0.2.10:80"], ["[2001:db8:51::7]:40000", "[2001:db8::10]:80"]);
        for [from, to] in [v4, v6] {
            let (from, to) = (endpoint(from), endpoint(to));
            let quote = Packet::udp(to, from, b"quoted").quoted(64);
            let unreachable = Icmp { kind: 3, code: 1, rest: [0; 4], payload: quote };
            for packet in [
                Packet::tcp(from, to, lb_ebpf::packet::tcp::ACK)
                    .with(|packet| packet.payload_mut().extend(b"odd")),
                Packet::udp(from, to, b"even"),
                Packet::new(from.ip(), to.ip(), Content::Icmp(unreachable)),
            ] {
                let frame = packet.to_frame();
                assert_eq!(read::verify(&frame), Ok(()), "{packet:?}");

                let ports = if from.is_ipv4() { 34 } else { 54 };
                for place in ports..frame.len() {
                    let mut broken = frame.clone();
                    broken[place] ^= 0x10;
                    assert!(read::verify(&broken).is_err(), "byte {place} of {packet:?}");
                }
            }
        }
    }
}
