//! Next hops and interfaces.

use crate::{limits::MAX_INTERFACE_INDEX, net::Mac, number::numbers};

numbers! {
    /// The kernel's index of an interface.
    InterfaceIndex,
}

impl InterfaceIndex {
    /// No interface.
    pub const NONE: Self = Self(0);
}

/// A next hop: egress interface and Ethernet addresses. All zeros while it is not resolved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The next hop's Ethernet address.
    pub destination: Mac,
    /// The egress interface's Ethernet address.
    pub source: Mac,
    /// The egress interface; [`InterfaceIndex::NONE`] while the next hop is not resolved.
    pub interface: InterfaceIndex,
    /// The longest IP packet that fits; 0 while the next hop is not resolved.
    pub mtu: u32,
}

crate::fields!(Hop { destination, source, interface, mtu });

const _: () = assert!(size_of::<Hop>() == 20);

/// An interface that xlb is attached to. The map's key is the interface index.
///
/// VLANs (not supported yet) need no field in next hops: these can name a VLAN device by its index, and its element
/// here has room for the VLAN id (`zero`) and for the device below it (`attached`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its own Ethernet address.
    pub mac: Mac,
    /// Zero.
    pub zero: u16,
    /// The longest IP packet that fits.
    pub mtu: u32,
    /// 1 if xlb sends through it.
    pub attached: u32,
}

crate::fields!(Interface { mac, zero, mtu, attached });

const _: () = assert!(size_of::<Interface>() == 16);

/// A flow's next hop towards its client: `generation (4) | interface (12) | MAC (48)`.
///
/// A single word, because a CPU that does not own the record may refresh it after a route change. Four generation bits let
/// the compare-exchange detect that the record was reused (ABA), for up to 15 reuses.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientHop(pub u64);

impl ClientHop {
    const INTERFACE: u32 = MAX_INTERFACE_INDEX - 1;

    /// Builds the word, for a record of this [generation](crate::flow::Control::generation).
    #[inline(always)]
    pub const fn new(mac: Mac, interface: InterfaceIndex, owner: u32) -> Self {
        let [a, b, c] = mac.0;
        let mac = (c as u64) << 32 | (b as u64) << 16 | a as u64;
        Self((owner as u64) << 60 | ((interface.0 & Self::INTERFACE) as u64) << 48 | mac)
    }

    /// The next hop's Ethernet address.
    #[inline(always)]
    pub const fn mac(self) -> Mac {
        Mac([self.0 as u16, (self.0 >> 16) as u16, (self.0 >> 32) as u16])
    }

    /// The interface towards it.
    #[inline(always)]
    pub const fn interface(self) -> InterfaceIndex {
        InterfaceIndex((self.0 >> 48) as u32 & Self::INTERFACE)
    }
}

/// The routing generation in which a [`ClientHop`] was looked up, combined with the record's owner.
///
/// Both are combined in 32 bits. For one flow the stamp is exact. The stamps of two flows can be equal only if the
/// routes changed at least 256 times in between. So a stamp that is stored late does not match the next owner, which
/// looks up its hop again.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HopStamp(pub u32);

impl HopStamp {
    /// The stamp of a routing generation and a record's [generation](crate::flow::Control::generation).
    #[inline(always)]
    pub const fn new(routes: u32, owner: u32) -> Self {
        Self(routes ^ owner << 8)
    }
}

crate::plain! {
    ClientHop = "client hop: owner 4, interface 12, mac 48",
    HopStamp = "hop stamp: routes ^ owner << 8",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_hop_keeps_its_parts_apart() {
        let mac = Mac::new([0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54]);
        let last = InterfaceIndex(4095);
        let hop = ClientHop::new(mac, last, 0xff_fffe);

        assert_eq!((hop.mac(), hop.interface()), (mac, last));
        assert_ne!(hop, ClientHop::new(mac, last, 0xff_ffff));
    }

    #[test]
    fn a_hop_stamp_matches_one_owner_and_one_routing_generation() {
        let stamp = HopStamp::new(1000, 0xff_fffe);

        assert_ne!(stamp, HopStamp::new(1001, 0xff_fffe));
        for routes in 1000..1256 {
            assert_ne!(stamp, HopStamp::new(routes, 0xff_ffff));
        }
    }
}
