//! A packet's bytes, with every length and checksum computed in full.

use std::net::IpAddr;

use super::{Content, Packet};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl Packet {
    /// The whole frame.
    pub fn to_frame(&self) -> Vec<u8> {
        let ethertype: [u8; 2] = if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        let mut frame = [&self.to_mac[..], &self.from_mac, &ethertype].concat();
        frame.extend(self.ip_bytes());
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    /// The IP packet.
    pub fn ip_bytes(&self) -> Vec<u8> {
        match self.source {
            IpAddr::V4(_) => self.ipv4(),
            IpAddr::V6(_) => self.ipv6(),
        }
    }

    /// RFC 791, 3.1.
    fn ipv4(&self) -> Vec<u8> {
        let content = self.content();
        let header_bytes = 20 + self.options.len();
        let mut header = vec![0x40 | (header_bytes / 4) as u8, self.class];
        header.extend(length(header_bytes + content.len()));
        header.extend(self.label.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.hops, self.protocol(), 0, 0]);
        header.extend(octets(self.source));
        header.extend(octets(self.destination));
        header.extend(&self.options);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum);
        [header, content].concat()
    }

    /// RFC 8200, 3 and 4.
    fn ipv6(&self) -> Vec<u8> {
        let content = self.content();
        let mut kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
        kinds.push(self.protocol());
        let mut extensions = Vec::new();
        for ((_, units), next) in self.extensions.iter().zip(&kinds[1..]) {
            let mut extension = vec![0; units * 8];
            // PadN fills what the two bytes of next header and length leave.
            extension[..4].copy_from_slice(&[*next, (units - 1) as u8, 1, (units * 8 - 4) as u8]);
            extensions.extend(extension);
        }
        let mut header = vec![0x60 | self.class >> 4, self.class << 4];
        header.extend(self.label.to_be_bytes());
        header.extend(length(extensions.len() + content.len()));
        header.extend([kinds[0], self.hops]);
        header.extend(octets(self.source));
        header.extend(octets(self.destination));
        [header, extensions, content].concat()
    }

    fn protocol(&self) -> u8 {
        match &self.content {
            Content::Tcp(_) => TCP,
            Content::Udp(_) => UDP,
            Content::Icmp(_) if self.source.is_ipv4() => ICMP,
            Content::Icmp(_) => ICMPV6,
            Content::Other { protocol, .. } => *protocol,
        }
    }

    fn content(&self) -> Vec<u8> {
        match &self.content {
            Content::Tcp(tcp) => {
                let mut bytes = [tcp.source.to_be_bytes(), tcp.destination.to_be_bytes()].concat();
                bytes.extend(tcp.sequence.to_be_bytes());
                bytes.extend(tcp.acknowledgement.to_be_bytes());
                let words = 5 + tcp.options.len() / 4;
                bytes.extend([(words as u8) << 4, tcp.flags]);
                bytes.extend(tcp.window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(&tcp.options);
                bytes.extend(&tcp.payload);
                let sum = self.checksum_with_pseudo_header(TCP, &bytes);
                bytes[16..18].copy_from_slice(&sum);
                bytes
            }
            Content::Udp(udp) => {
                let mut bytes = [udp.source.to_be_bytes(), udp.destination.to_be_bytes()].concat();
                bytes.extend(length(8 + udp.payload.len()));
                bytes.extend([0, 0]);
                bytes.extend(&udp.payload);
                if !udp.without_checksum {
                    let sum = self.checksum_with_pseudo_header(UDP, &bytes);
                    // A computed zero is sent as all ones, because zero means none (RFC 768).
                    bytes[6..8].copy_from_slice(if sum == [0, 0] { &[0xff, 0xff] } else { &sum });
                }
                bytes
            }
            Content::Icmp(icmp) => {
                let mut bytes = vec![icmp.kind, icmp.code, 0, 0];
                bytes.extend(icmp.rest);
                bytes.extend(&icmp.payload);
                let sum = match self.source {
                    IpAddr::V4(_) => checksum(&[&bytes]),
                    IpAddr::V6(_) => self.checksum_with_pseudo_header(ICMPV6, &bytes),
                };
                bytes[2..4].copy_from_slice(&sum);
                bytes
            }
            Content::Other { bytes, .. } => bytes.clone(),
        }
    }

    fn checksum_with_pseudo_header(&self, protocol: u8, bytes: &[u8]) -> [u8; 2] {
        checksum(&[
            &pseudo_header(&octets(self.source), &octets(self.destination), protocol, bytes.len()),
            bytes,
        ])
    }
}

/// RFC 9293, 3.1 and RFC 8200, 8.1: as sums they are one, because IPv6 only widens fields with zeros.
pub(super) fn pseudo_header(source: &[u8], destination: &[u8], protocol: u8, bytes: usize) -> Vec<u8> {
    [source, destination, &[0, protocol], &length(bytes)].concat()
}

/// RFC 1071, over pieces that all have an even length, except the last.
pub(crate) fn checksum(pieces: &[&[u8]]) -> [u8; 2] {
    let bytes = pieces.concat();
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn length(bytes: usize) -> [u8; 2] {
    (bytes as u16).to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
