//! From bytes to a packet, or to the reason why it is none of ours.

use lb_common::{
    net::{Be16, Ports, Protocol, V4, V6},
    reason::Reason,
    service::ServiceKey,
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    family::{Family, Tuple},
    packet::frame::{Cursor, Header},
    packet::headers::{Ethernet, Tcp},
    packet::tcp::Segment,
    tables::Tables,
};

/// A TCP or UDP packet, ready to be rewritten.
pub struct Packet<'a, F: Family> {
    /// Its Ethernet header.
    pub ethernet: &'a mut Ethernet,
    /// Its IP header.
    pub ip: &'a mut F::Header,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// From.
    pub source_port: &'a mut [u8; 2],
    /// To.
    pub destination_port: &'a mut [u8; 2],
    /// Of TCP or UDP.
    pub checksum: &'a mut [u8; 2],
    /// What the segment says; nothing for UDP.
    pub segment: Segment,
    /// Bytes of the IP packet, which may be less than the frame holds.
    pub length: u32,
}

/// What the flow table needs to know of a packet.
pub struct Facts<F: Family> {
    /// What tells its flow.
    pub tuple: Tuple<F>,
    /// See [`Packet::segment`].
    pub segment: Segment,
    /// Hops left.
    pub hops: u8,
    /// See [`Packet::length`].
    pub length: u32,
    /// Bytes of the frame.
    pub frame: u64,
}

impl<F: Family> Packet<'_, F> {
    /// Its facts, in a frame of so many bytes.
    #[inline(always)]
    pub fn facts(&self, frame: u64) -> Facts<F> {
        let (source, destination) = F::addresses(self.ip);
        let ports = Ports::new(Be16::from_bytes(*self.source_port), Be16::from_bytes(*self.destination_port));
        let tuple = Tuple { source, destination, ports, protocol: u32::from(self.protocol.number()) };
        Facts { tuple, segment: self.segment, hops: F::hops(self.ip), length: self.length, frame }
    }
}

/// An IP packet, not yet looked into.
pub struct IpPacket<'a, F: Family> {
    /// Its Ethernet header.
    pub ethernet: &'a mut Ethernet,
    /// Its IP header.
    pub ip: &'a mut F::Header,
    /// What follows the IP header and its options.
    pub cursor: Cursor<'a>,
    /// Bytes of the IP header and its options.
    pub header: usize,
    /// Bytes of the IP packet, which are no fewer.
    pub length: usize,
}

/// What is done with what was parsed; both say where the packet leaves.
///
/// A visitor, because a packet's references must not be returned: LLVM would keep a reference and a reason in one word
/// and mask it, and the verifier lets nobody calculate with packet pointers.
pub trait Visitor<F: Family> {
    /// TCP or UDP.
    fn packet(self, packet: Packet<'_, F>) -> Result<u32, Reason>;
    /// ICMP or ICMPv6.
    fn icmp(self, packet: IpPacket<'_, F>) -> Result<u32, Reason>;
}

const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// More fragments follow, or this is not the first (RFC 791, 3.1).
const FRAGMENT: u16 = 0x3fff;

// IPv6 headers that may stand before TCP and UDP (RFC 8200, 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT_HEADER: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Parses behind an Ethernet header that says IPv4.
#[inline(always)]
pub fn ipv4(
    ethernet: &mut Ethernet,
    mut cursor: Cursor<'_>,
    tables: &impl Tables,
    visitor: impl Visitor<V4>,
) -> Result<u32, Reason> {
    let available = cursor.remaining();
    let ip = cursor.take::<Ipv4Hdr>()?;
    let header = usize::from(ip.vihl & 0x0f) * 4;
    let length = usize::from(u16::from_be_bytes(ip.tot_len));
    if ip.vihl >> 4 != 4 || header < 20 || length < header || length > available {
        return Err(if_ours::<V4>(tables, ip, ip.proto, Reason::Malformed));
    }
    if u16::from_be_bytes(ip.frags) & FRAGMENT != 0 {
        return Err(if_ours::<V4>(tables, ip, ip.proto, Reason::Fragment));
    }
    // Ports are behind the options, which stay as they are.
    cursor.skip(header - 20);
    let protocol = ip.proto;
    let packet = IpPacket { ethernet, ip, cursor, header, length };
    match protocol {
        TCP => transport::<V4, Tcp>(packet, tables, visitor),
        UDP => transport::<V4, UdpHdr>(packet, tables, visitor),
        ICMP => visitor.icmp(packet),
        _ => Err(Reason::NotService),
    }
}

/// Parses behind an Ethernet header that says IPv6.
#[inline(always)]
pub fn ipv6(
    ethernet: &mut Ethernet,
    mut cursor: Cursor<'_>,
    tables: &impl Tables,
    visitor: impl Visitor<V6>,
) -> Result<u32, Reason> {
    let available = cursor.remaining();
    let ip = cursor.take::<Ipv6Hdr>()?;
    let header = size_of::<Ipv6Hdr>();
    let length = header + usize::from(u16::from_be_bytes(ip.payload_len));
    if ip.vcf[0] >> 4 != 6 || length > available {
        return Err(if_ours::<V6>(tables, ip, ip.next_hdr, Reason::Malformed));
    }
    let protocol = ip.next_hdr;
    let packet = IpPacket { ethernet, ip, cursor, header, length };
    match protocol {
        TCP => transport::<V6, Tcp>(packet, tables, visitor),
        UDP => transport::<V6, UdpHdr>(packet, tables, visitor),
        ICMPV6 => visitor.icmp(packet),
        FRAGMENT_HEADER => Err(if_ours_by_either(tables, packet.ip, Reason::Fragment)),
        HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS => {
            Err(if_ours_by_either(tables, packet.ip, Reason::ExtensionHeader))
        }
        _ => Err(Reason::NotService),
    }
}

/// What differs between TCP and UDP.
trait Transport: Header {
    const PROTOCOL: Protocol;
    /// Do its own lengths keep within so many bytes?
    fn fits(&self, available: usize) -> bool;
    fn segment(&self) -> Segment;
    /// Source port, destination port, checksum.
    fn fields(&mut self) -> [&mut [u8; 2]; 3];
}

impl Transport for Tcp {
    const PROTOCOL: Protocol = Protocol::Tcp;

    #[inline(always)]
    fn fits(&self, available: usize) -> bool {
        self.offset >> 4 >= 5 && available >= size_of::<Self>()
    }

    #[inline(always)]
    fn segment(&self) -> Segment {
        Segment {
            flags: self.flags,
            sequence: u32::from_be_bytes(self.sequence),
            acknowledgement: u32::from_be_bytes(self.acknowledgement),
        }
    }

    #[inline(always)]
    fn fields(&mut self) -> [&mut [u8; 2]; 3] {
        [&mut self.source, &mut self.destination, &mut self.checksum]
    }
}

impl Transport for UdpHdr {
    const PROTOCOL: Protocol = Protocol::Udp;

    #[inline(always)]
    fn fits(&self, available: usize) -> bool {
        let length = usize::from(u16::from_be_bytes(self.len));
        size_of::<Self>() <= length && length <= available
    }

    #[inline(always)]
    fn segment(&self) -> Segment {
        Segment::default()
    }

    #[inline(always)]
    fn fields(&mut self) -> [&mut [u8; 2]; 3] {
        [&mut self.src, &mut self.dst, &mut self.check]
    }
}

#[inline(always)]
fn transport<F: Family, H: Transport>(
    packet: IpPacket<'_, F>,
    tables: &impl Tables,
    visitor: impl Visitor<F>,
) -> Result<u32, Reason> {
    let IpPacket { ethernet, ip, mut cursor, header, length } = packet;
    let Some(transport) = cursor.take::<H>().ok().filter(|it| it.fits(length - header)) else {
        return Err(if_ours::<F>(tables, ip, H::PROTOCOL.number(), Reason::Malformed));
    };
    let segment = transport.segment();
    let [source_port, destination_port, checksum] = transport.fields();
    visitor.packet(Packet {
        ethernet,
        ip,
        protocol: H::PROTOCOL,
        source_port,
        destination_port,
        checksum,
        segment,
        length: length as u32,
    })
}

/// Which protocol follows an extension header is not known without a walk: either makes the address ours.
#[inline(always)]
fn if_ours_by_either(tables: &impl Tables, ip: &Ipv6Hdr, reason: Reason) -> Reason {
    let by_tcp = if_ours::<V6>(tables, ip, TCP, reason);
    if by_tcp == Reason::NotService { if_ours::<V6>(tables, ip, UDP, reason) } else { by_tcp }
}

/// The reason, if some port of the packet's destination is ours; else it is not for us to judge.
#[inline(always)]
fn if_ours<F: Family>(tables: &impl Tables, ip: &F::Header, protocol: u8, reason: Reason) -> Reason {
    let (_, destination) = F::addresses(ip);
    let key = ServiceKey::new(F::to_key(destination), Be16::new(0), protocol);
    match tables.service(&key) {
        Some(_) => reason,
        None => Reason::NotService,
    }
}
