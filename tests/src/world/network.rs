//! The network around the balancer: interfaces, prefixes, neighbours, and the results of route lookups.

use std::net::IpAddr;

use lb_common::{
    hop::{Hop, Interface, InterfaceIndex},
    net::Mac,
    reason::Reason,
};
use lb_ebpf::storage::Route;

use super::World;

/// Interface indices.
pub const FRONT: u32 = 11;
/// The index of the interface towards the backends.
pub const BACK: u32 = 12;
/// An interface that xlb is not attached to.
pub const SIDE: u32 = 13;

/// Name and index of each interface.
pub const INTERFACES: [(&str, u32); 3] = [("front", FRONT), ("back", BACK), ("side", SIDE)];

/// On-link prefixes: network, length, interface, and the host's own address there.
pub const PREFIXES: [(&str, u8, u32, &str); 5] = [
    ("198.51.100.0", 24, FRONT, "198.51.100.254"),
    ("2001:db8:51::", 64, FRONT, "2001:db8:51::fe"),
    ("10.0.0.0", 24, BACK, "10.0.0.1"),
    ("fd00::", 64, BACK, "fd00::1"),
    ("172.16.0.0", 24, SIDE, "172.16.0.254"),
];

/// Prefixes behind a gateway.
pub const GATEWAYS: [(&str, u8, &str); 2] =
    [("203.0.113.0", 24, "198.51.100.1"), ("2001:db8:113::", 64, "2001:db8:51::1")];

/// A resolved neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// On-link: a station behind a gateway has no entry.
    pub address: IpAddr,
    /// The index of the one whose network it is on.
    pub interface: u32,
    /// As [`mac_of`] gives it, until a row makes the host [learn](World::learn) another.
    pub mac: [u8; 6],
}

/// Numbers of the stations with a neighbour entry: the gateway, clients, backends.
const KNOWN: [u8; 8] = [1, 7, 8, 9, 11, 12, 13, 77];

/// All stations of rows, except those that must be unknown.
pub fn standard_neighbours() -> Vec<Neighbour> {
    let mut neighbours = Vec::new();
    for (network, _, interface, own) in PREFIXES {
        for number in KNOWN {
            let address = station(network, number);
            if own.parse() != Ok(address) {
                neighbours.push(Neighbour { address, interface, mac: mac_of(address) });
            }
        }
    }
    neighbours
}

/// The station with a number on a network.
///
/// # Panics
/// If the text is no address.
fn station(network: &str, number: u8) -> IpAddr {
    let text = match network.strip_suffix(".0") {
        Some(network) => format!("{network}.{number}"),
        None => format!("{network}{number}"),
    };
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

/// A station's Ethernet address, derived from its IP address.
pub fn mac_of(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [2, 4, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            [2, 6, octets[0], octets[5], octets[14], octets[15]]
        }
    }
}

/// An interface's own Ethernet address, until a row changes it.
pub fn mac_of_interface(index: u32) -> [u8; 6] {
    [2, 1, 0, 0, 0, index as u8]
}

/// The interface whose network an address is on, or behind. Other addresses arrive at the front.
pub fn interface_towards(address: IpAddr) -> u32 {
    next_hop(address).map_or(FRONT, |(_, interface)| interface)
}

fn next_hop(address: IpAddr) -> Option<(IpAddr, u32)> {
    for (network, bits, interface, _) in PREFIXES {
        if is_within(address, network, bits) {
            return Some((address, interface));
        }
    }
    let (.., gateway) = GATEWAYS.iter().find(|(network, bits, _)| is_within(address, network, *bits))?;
    next_hop(gateway.parse().ok()?)
}

fn is_within(address: IpAddr, network: &str, bits: u8) -> bool {
    let prefix = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    let Ok(network) = network.parse::<IpAddr>() else { return false };
    let difference = prefix(address) ^ prefix(network);
    address.is_ipv4() == network.is_ipv4() && difference.leading_zeros() >= bits.into()
}

impl World {
    /// Looks up the host's route.
    pub fn route(&self, destination: IpAddr) -> Result<Route, Reason> {
        let (gateway, interface) = next_hop(destination).ok_or(Reason::NoClientRoute)?;
        let egress = self.interface(interface);
        if egress.attached == 0 {
            return Err(Reason::NoClientRoute);
        }
        let index = InterfaceIndex(interface);
        let hop = Hop { destination: Mac::default(), source: egress.mac, interface: index, mtu: egress.mtu };
        let mut neighbours = self.neighbours.iter();
        Ok(match neighbours.find(|it| it.address == gateway && it.interface == interface) {
            Some(neighbour) => Route::Resolved(Hop { destination: Mac::new(neighbour.mac), ..hop }),
            None => Route::Unresolved { hop, next_hop: gateway.into() },
        })
    }

    /// An interface's current Ethernet address.
    pub fn own_mac(&self, index: u32) -> [u8; 6] {
        self.own_macs.get(&index).copied().unwrap_or_default()
    }

    /// An interface as the program sees it.
    pub fn interface(&self, index: u32) -> Interface {
        Interface {
            mac: Mac::new(self.own_mac(index)),
            zero: 0,
            mtu: self.mtu,
            attached: u32::from(index != SIDE),
        }
    }

    /// A station has another Ethernet address, or none that is known.
    pub fn learn(&mut self, address: IpAddr, mac: Option<[u8; 6]>) {
        self.neighbours.retain(|neighbour| neighbour.address != address);
        if let (Some(mac), Some((_, interface))) = (mac, next_hop(address)) {
            self.neighbours.push(Neighbour { address, interface, mac });
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::net::Protocol;
    use lb_common::service::Mode;

    use super::*;
    use crate::world::{Family, Kind};

    #[test]
    fn routes_are_on_link_behind_a_gateway_or_not_there() {
        let world = World::new(Kind::new(Family::V4, Protocol::Tcp, Mode::Nat));
        let mac_towards = |address| match world.route(address) {
            Ok(Route::Resolved(hop)) => Some(hop.destination.to_bytes()),
            Ok(Route::Unresolved { .. }) | Err(_) => None,
        };
        for family in Family::ALL {
            let (unknown, nowhere) = (family.client(99), family.address("192.88.99.1", "2001:db8:fff::1"));

            assert_eq!(mac_towards(family.client(7)), Some(mac_of(family.client(7))));
            assert_eq!(mac_towards(family.far_client()), Some(mac_of(family.client(1))));
            assert_eq!(mac_towards(family.inside(77)), Some(mac_of(family.inside(77))));
            assert!(
                matches!(world.route(unknown), Ok(Route::Unresolved { next_hop, .. }) if next_hop == unknown.into())
            );
            assert_eq!(world.route(nowhere), Err(Reason::NoClientRoute));
        }
        assert_eq!(world.route("172.16.0.7".parse().unwrap()), Err(Reason::NoClientRoute));
    }
}
