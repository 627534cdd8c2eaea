//! From bytes to values.
//!
//! Everything here is a plain value. No reference into the packet outlives parsing, so a packet may grow or shrink
//! afterwards; code that writes takes the headers again ([`super::rewrite`]).

use lb_common::{
    net::{Be16, Ports, Protocol},
    reason::Reason,
};
use network_types::udp::UdpHdr;

use crate::{
    family::{Family, Tuple},
    packet::{
        frame::{Cursor, Header},
        headers::{Ethernet, Tcp},
        tcp::Segment,
    },
};

/// The protocol that follows the Ethernet header.
#[inline(always)]
pub fn ethertype(cursor: &mut Cursor<'_>) -> Result<Be16, Reason> {
    Ok(Be16::from_bytes(cursor.take::<Ethernet>()?.ethertype))
}

/// The fields of an IP header, not yet validated: see [`Ip::check`].
#[derive(Clone, Copy, Debug)]
pub struct Ip<F: Family> {
    /// The source address.
    pub source: F::Address,
    /// The destination address.
    pub destination: F::Address,
    /// The protocol number of the next header.
    pub protocol: u8,
    /// The hop limit (TTL).
    pub hops: u8,
    /// Bytes of the header and its options.
    pub header: u32,
    /// Bytes of the whole IP packet. The frame may be longer (padding).
    pub length: u32,
    /// IPv4's more-fragments bit and fragment offset (RFC 791, 3.1).
    pub fragment: u16,
    /// Are the version and the header's length those of this family?
    pub is_header: bool,
}

impl<F: Family> Ip<F> {
    /// Takes the header and its options.
    #[inline(always)]
    pub fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Reason> {
        let ip = F::parse(cursor.take::<F::Header>()?);
        cursor.skip(ip.options());
        Ok(ip)
    }

    /// Bytes of options. Meaningless unless [`Ip::is_header`].
    #[inline(always)]
    pub fn options(&self) -> usize {
        (self.header as usize).wrapping_sub(size_of::<F::Header>())
    }

    /// Can the transport header be read? `available`: bytes of the frame from the IP header on.
    #[inline(always)]
    pub fn check(&self, available: usize) -> Result<(), Reason> {
        if !self.is_header || self.length < self.header || self.length as usize > available {
            return Err(Reason::Malformed);
        }
        if self.fragment != 0 {
            return Err(Reason::Fragment);
        }
        F::hides_transport(self.protocol).map_or(Ok(()), Err)
    }

    /// Does the packet contain the transport header? Fragments after the first do not.
    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        self.fragment & FRAGMENT_OFFSET == 0
    }
}

/// Whether more fragments follow, or this is not the first one (RFC 791, 3.1).
pub const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A TCP or UDP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<F: Family> {
    /// Identifies its flow.
    pub tuple: Tuple<F>,
    /// The fields of a TCP segment; zero for UDP.
    pub segment: Segment,
    /// Its hop limit and lengths.
    pub layout: Layout,
}

/// A packet's hop limit and lengths. Words only, because slow paths read it from a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// The hop limit (TTL).
    pub hops: u32,
    /// Bytes of IP options.
    pub options: u32,
    /// Bytes of the IP packet.
    pub length: u32,
    /// Bytes of the frame.
    pub frame: u32,
}

impl<F: Family> Packet<F> {
    /// Takes the transport header after an IP header that was [checked](Ip::check).
    #[inline(always)]
    pub fn parse(ip: &Ip<F>, cursor: &mut Cursor<'_>, frame: u64) -> Result<Self, Reason> {
        let (ports, segment) = match ip.protocol {
            TCP => transport::<Tcp>(cursor, ip.length - ip.header)?,
            UDP => transport::<UdpHdr>(cursor, ip.length - ip.header)?,
            _ => return Err(Reason::NotService),
        };
        let tuple =
            Tuple { source: ip.source, destination: ip.destination, ports, protocol: u32::from(ip.protocol) };
        let layout = Layout {
            hops: u32::from(ip.hops),
            options: ip.options() as u32,
            length: ip.length,
            frame: frame as u32,
        };
        Ok(Self { tuple, segment, layout })
    }
}

/// TCP's protocol number.
pub const TCP: u8 = Protocol::Tcp.number();
/// UDP's protocol number.
pub const UDP: u8 = Protocol::Udp.number();

#[inline(always)]
fn transport<H: Transport>(cursor: &mut Cursor<'_>, available: u32) -> Result<(Ports, Segment), Reason> {
    let header = cursor.take::<H>().map_err(|_| Reason::Malformed)?;
    if !header.fits(available) {
        return Err(Reason::Malformed);
    }
    Ok((header.ports(), header.segment()))
}

/// What differs between TCP and UDP.
trait Transport: Header + 'static {
    /// Do the header's own lengths fit into `available` bytes?
    fn fits(&self, available: u32) -> bool;
    fn ports(&self) -> Ports;
    fn segment(&self) -> Segment;
}

impl Transport for Tcp {
    #[inline(always)]
    fn fits(&self, available: u32) -> bool {
        self.offset >> 4 >= 5 && available >= size_of::<Self>() as u32
    }

    #[inline(always)]
    fn ports(&self) -> Ports {
        Ports::new(Be16::from_bytes(self.source), Be16::from_bytes(self.destination))
    }

    #[inline(always)]
    fn segment(&self) -> Segment {
        self.as_segment()
    }
}

impl Transport for UdpHdr {
    #[inline(always)]
    fn fits(&self, available: u32) -> bool {
        let length = u32::from(u16::from_be_bytes(self.len));
        size_of::<Self>() as u32 <= length && length <= available
    }

    #[inline(always)]
    fn ports(&self) -> Ports {
        Ports::new(Be16::from_bytes(self.src), Be16::from_bytes(self.dst))
    }

    #[inline(always)]
    fn segment(&self) -> Segment {
        Segment::default()
    }
}
