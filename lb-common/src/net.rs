//! Numbers as they are in packets.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A 16-bit number in network order, exactly as in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Be16(u16);

impl Be16 {
    /// Converts a native number to network order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// Reads the bytes as they are in a packet.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The bytes as they are in a packet.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }

    /// The two bytes as one word, unswapped: for sums and hashes, which do not depend on byte order.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

impl core::fmt::Debug for Be16 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.get())
    }
}

/// Source and destination port as one word, as the first four bytes of TCP and UDP headers hold them.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ports(u32);

impl Ports {
    /// Combines two ports in the order of a packet.
    #[inline(always)]
    pub const fn new(source: Be16, destination: Be16) -> Self {
        // Built from halfwords, which LLVM loads from a packet as one word. From bytes it would load four.
        let (source, destination) = (source.raw() as u32, destination.raw() as u32);
        Self(if cfg!(target_endian = "little") {
            source | destination << 16
        } else {
            source << 16 | destination
        })
    }

    /// Reads the first four bytes of a TCP or UDP header.
    #[inline(always)]
    pub const fn from_raw(word: u32) -> Self {
        Self(word)
    }

    /// The four bytes as one word, unswapped.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The ports of a packet in the opposite direction.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self(self.0.rotate_left(16))
    }

    /// The source port.
    #[inline(always)]
    pub const fn source(self) -> Be16 {
        self.halves().0
    }

    /// The destination port.
    #[inline(always)]
    pub const fn destination(self) -> Be16 {
        self.halves().1
    }

    #[inline(always)]
    const fn halves(self) -> (Be16, Be16) {
        let (low, high) = (Be16(self.0 as u16), Be16((self.0 >> 16) as u16));
        if cfg!(target_endian = "little") { (low, high) } else { (high, low) }
    }
}

/// An Ethernet address as halfwords: on the BPF target, a byte array would be copied by a function call.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac(pub [u16; 3]);

impl Mac {
    /// Reads the six bytes as they are in a frame.
    pub const fn new(b: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([b[0], b[1]]),
            u16::from_ne_bytes([b[2], b[3]]),
            u16::from_ne_bytes([b[4], b[5]]),
        ])
    }

    /// The six bytes as they are in a frame.
    pub const fn to_bytes(self) -> [u8; 6] {
        let [a, b, c] = [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes()];
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    /// Is this the all-zero address?
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] == 0
    }

    /// Is it the address of one station (IEEE 802, 8.2.2: the first bit on the wire marks a group address)?
    #[inline(always)]
    pub const fn is_unicast(self) -> bool {
        let [first, _] = self.0[0].to_ne_bytes();
        (first & 1 == 0) & !self.is_zero()
    }
}

/// An IPv4 address as it is in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct V4(pub u32);

/// An IPv6 address as it is in a packet, as two words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct V6(pub u64, pub u64);

impl V4 {
    /// Reads the four bytes as they are in a packet.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// The four bytes as they are in a packet.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl V6 {
    /// Reads the sixteen bytes as they are in a packet.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        // As one value, so that LLVM loads two words from a packet, not sixteen bytes.
        let (low, high) = Self::halves(u128::from_ne_bytes(bytes));
        if cfg!(target_endian = "little") { Self(low, high) } else { Self(high, low) }
    }

    /// The sixteen bytes as they are in a packet.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; 16] {
        let (low, high) = if cfg!(target_endian = "little") { (self.0, self.1) } else { (self.1, self.0) };
        ((high as u128) << 64 | low as u128).to_ne_bytes()
    }

    #[inline(always)]
    const fn halves(both: u128) -> (u64, u64) {
        (both as u64, (both >> 64) as u64)
    }
}

/// An address of either family: IPv4 is stored as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// For slow paths only. Flow records use [`V4`] or [`V6`].
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Address(V6);

impl Address {
    /// `::ffff:a.b.c.d`
    #[inline(always)]
    pub const fn v4(address: V4) -> Self {
        let mapped = address.to_bytes();
        let low = [0, 0, 0xff, 0xff, mapped[0], mapped[1], mapped[2], mapped[3]];
        Self(V6(0, u64::from_ne_bytes(low)))
    }

    /// An IPv6 address as it is.
    #[inline(always)]
    pub const fn v6(address: V6) -> Self {
        Self(address)
    }

    /// The IPv4 address. The caller must know that it is one.
    #[inline(always)]
    pub const fn as_v4(self) -> V4 {
        let low = self.0.1.to_ne_bytes();
        V4::from_bytes([low[4], low[5], low[6], low[7]])
    }

    /// All sixteen bytes.
    #[inline(always)]
    pub const fn as_v6(self) -> V6 {
        self.0
    }

    /// The address as the standard library's type.
    pub fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self.0.to_bytes()).to_canonical()
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::v4(ip.into()),
            IpAddr::V6(ip) => Self::v6(ip.into()),
        }
    }
}

impl From<Ipv4Addr> for V4 {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_bytes(ip.octets())
    }
}

impl From<Ipv6Addr> for V6 {
    fn from(ip: Ipv6Addr) -> Self {
        Self::from_bytes(ip.octets())
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.to_ip())
    }
}

/// The protocols that xlb balances.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
}

impl Protocol {
    /// The protocol with this number in the IP header, if xlb balances it.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// The number in the IP header.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

crate::plain! {
    Be16 = "be16",
    Ports = "ports",
    Mac = "mac",
    V4 = "ipv4",
    V6 = "ipv6",
    Address = "address",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_survive_the_round_trip() {
        for text in ["192.0.2.10", "2001:db8::10", "255.255.255.255", "::1"] {
            let ip: IpAddr = text.parse().unwrap();

            assert_eq!(Address::from(ip).to_ip(), ip);
        }
    }

    #[test]
    fn group_and_zero_addresses_are_not_unicast() {
        for (mac, is_unicast) in [
            ([2, 0, 0, 0, 0, 1], true),
            ([0, 0, 0, 0, 0, 1], true),
            ([0; 6], false),
            ([0xff; 6], false),
            ([0x33, 0x33, 0, 0, 0, 1], false),
        ] {
            assert_eq!(Mac::new(mac).is_unicast(), is_unicast, "{mac:x?}");
        }
    }

    #[test]
    fn ports_have_packet_order_and_can_be_reversed() {
        let ports = Ports::new(Be16::new(0x1234), Be16::new(80));

        assert_eq!(ports.raw().to_ne_bytes(), [0x12, 0x34, 0, 80]);
        assert_eq!(ports.reversed(), Ports::new(Be16::new(80), Be16::new(0x1234)));
        assert_eq!((ports.source().get(), ports.destination().get()), (0x1234, 80));
    }
}
