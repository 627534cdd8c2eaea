//! Reads frames: verifies all checksums, returns the endpoints, and prints them.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::wire::{checksum, pseudo_header};

/// An IP packet, taken apart as far as it goes.
struct View<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hops: u8,
    header: &'a [u8],
    content: &'a [u8],
    /// The packet is shorter than its header says: a quote.
    is_cut: bool,
}

impl<'a> View<'a> {
    fn of(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let header_bytes = usize::from(packet[0] & 0xf) * 4;
                let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
                let (header, content) = packet.split_at_checked(header_bytes)?;
                let address = |at: usize| -> Option<IpAddr> {
                    let bytes: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
                    Some(Ipv4Addr::from(bytes).into())
                };
                Some(Self {
                    source: address(12)?,
                    destination: address(16)?,
                    protocol: header[9],
                    hops: header[8],
                    header,
                    content: content.get(..total.checked_sub(header_bytes)?).unwrap_or(content),
                    is_cut: packet.len() < total,
                })
            }
            6 => {
                let (header, content) = packet.split_at_checked(40)?;
                let total = usize::from(u16::from_be_bytes([header[4], header[5]]));
                let address = |at: usize| -> Option<IpAddr> {
                    let bytes: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
                    Some(Ipv6Addr::from(bytes).into())
                };
                Some(Self {
                    source: address(8)?,
                    destination: address(24)?,
                    protocol: header[6],
                    hops: header[7],
                    header,
                    content: content.get(..total).unwrap_or(content),
                    is_cut: content.len() < total,
                })
            }
            _ => None,
        }
    }

    fn pseudo_header(&self) -> Vec<u8> {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        pseudo_header(&octets(self.source), &octets(self.destination), self.protocol, self.content.len())
    }

    fn verify(&self) -> Result<(), String> {
        if self.source.is_ipv4() && checksum(&[self.header]) != [0, 0] {
            return Err(format!("IPv4 header checksum of {} -> {} is wrong", self.source, self.destination));
        }
        let with_pseudo_header = checksum(&[&self.pseudo_header(), self.content]);
        match (self.protocol, self.source) {
            (1, IpAddr::V4(_)) => self.verify_icmp(checksum(&[self.content])),
            (58, IpAddr::V6(_)) => self.verify_icmp(with_pseudo_header),
            // The checksum of a quote covers bytes that were cut off.
            _ if self.is_cut => Ok(()),
            (6, _) if with_pseudo_header != [0, 0] => Err("TCP checksum is wrong".into()),
            (17, _) if self.content.get(6..8) == Some(&[0, 0]) && self.source.is_ipv4() => Ok(()),
            (17, _) if with_pseudo_header != [0, 0] => Err("UDP checksum is wrong".into()),
            _ => Ok(()),
        }
    }

    fn verify_icmp(&self, sum: [u8; 2]) -> Result<(), String> {
        if sum != [0, 0] {
            return Err("ICMP checksum is wrong".into());
        }
        let is_error = match self.source {
            IpAddr::V4(_) => matches!(self.content.first(), Some(3 | 11 | 12)),
            IpAddr::V6(_) => matches!(self.content.first(), Some(0..128)),
        };
        match self.content.get(8..).and_then(View::of) {
            Some(quoted) if is_error => quoted.verify().map_err(|mistake| format!("in the quote: {mistake}")),
            Some(_) | None => Ok(()),
        }
    }

    fn ports(&self) -> Option<(u16, u16)> {
        let bytes = self.content.get(..4)?;
        let has_ports = matches!(self.protocol, 6 | 17);
        has_ports
            .then(|| (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]])))
    }
}

/// Recomputes every checksum of a frame, those within an ICMP error's quote as well.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    frame.get(14..).and_then(View::of).ok_or("not a whole IP packet")?.verify()
}

/// Source and destination of a TCP or UDP frame.
pub fn endpoints(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let view = frame.get(14..).and_then(View::of)?;
    let (source, destination) = view.ports()?;
    Some((SocketAddr::new(view.source, source), SocketAddr::new(view.destination, destination)))
}

/// One line of description, and the bytes.
pub fn print(frame: &[u8]) -> String {
    let mut text = String::new();
    match frame.get(14..).and_then(View::of) {
        Some(view) => describe(&mut text, &view),
        None => text.push_str("not IP"),
    }
    let _ = write!(text, ", {} bytes", frame.len());
    if let Err(mistake) = verify(frame) {
        let _ = write!(text, " ({mistake})");
    }
    for (row, bytes) in frame.chunks(16).enumerate() {
        let _ = write!(text, "\n      {:04x} ", row * 16);
        for byte in bytes {
            let _ = write!(text, " {byte:02x}");
        }
    }
    text
}

fn describe(text: &mut String, view: &View<'_>) {
    let name = match view.protocol {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        58 => "ICMPv6",
        _ => "IP",
    };
    let (from, to) = view
        .ports()
        .map_or((String::new(), String::new()), |(from, to)| (format!(":{from}"), format!(":{to}")));
    let _ = write!(text, "{name} {}{from} -> {}{to} hops {}", view.source, view.destination, view.hops);
    if view.protocol == 6
        && let Some(bytes) = view.content.get(4..14)
    {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let _ = write!(text, " flags {:#04x} seq {} ack {}", bytes[9], word(0), word(4));
    }
    if let (1 | 58, Some(quoted)) = (view.protocol, view.content.get(8..).and_then(View::of)) {
        let _ = write!(text, " type {} quoting [", view.content[0]);
        describe(text, &quoted);
        text.push(']');
    }
}
