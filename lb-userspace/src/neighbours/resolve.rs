//! Computes the next hop of a backend from the kernel's state. No I/O.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{
    hop::{Hop, InterfaceIndex},
    net::Mac,
};

use crate::{datapath::Attached, event::HopState};

/// A neighbour's location: interface index and neighbour address.
pub type Place = (InterfaceIndex, IpAddr);

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    /// `None`: not Ethernet.
    pub mac: Option<Mac>,
    pub mtu: u32,
    /// Administratively up, and with a carrier.
    pub is_up: bool,
}

/// A state in the neighbour table (RFC 4861, 7.3.2, and ARP alike).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Confirmed recently, or being confirmed.
    Fresh(Mac),
    /// Valid until the next request.
    Stale(Mac),
    /// Permanent, set by the operator: neither the kernel nor xlb requests it.
    Fixed(Mac),
    /// Requested, no answer yet.
    Incomplete,
    /// Requested, no answer within the time limit.
    Failed,
}

impl Neighbour {
    pub fn mac(self) -> Option<Mac> {
        match self {
            Self::Fresh(mac) | Self::Stale(mac) | Self::Fixed(mac) => Some(mac),
            Self::Incomplete | Self::Failed => None,
        }
    }
}

/// How this host reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through the neighbour `next_hop`: a gateway, or the address itself if it is on-link.
    Via { interface: InterfaceIndex, next_hop: IpAddr, mtu: Option<u32> },
    /// The address is this host's own.
    Local,
    /// No route, or one that leads to no neighbour, such as unreachable, prohibit or blackhole.
    Missing,
}

impl Route {
    /// The location of the neighbour that this route leads to.
    pub fn place(self) -> Option<Place> {
        match self {
            Self::Via { interface, next_hop, mtu: _ } => Some((interface, next_hop)),
            Self::Local | Self::Missing => None,
        }
    }
}

/// Finds the next hop of a route.
pub fn resolve(
    route: Route,
    links: &BTreeMap<InterfaceIndex, Link>,
    neighbours: &BTreeMap<Place, Neighbour>,
    attached: &[Attached],
) -> HopState {
    let (index, next_hop, route_mtu) = match route {
        Route::Via { interface, next_hop, mtu } => (interface, next_hop, mtu),
        Route::Local => return HopState::Local,
        Route::Missing => return HopState::NoRoute,
    };
    if !attached.iter().any(|interface| interface.index == index) {
        let is_ethernet = links.get(&index).is_none_or(|link| link.mac.is_some());
        return HopState::Outside { interface: name(index, links), is_ethernet };
    }
    let neighbour = neighbours.get(&(index, next_hop)).and_then(|neighbour| neighbour.mac());
    let link = links.get(&index).and_then(|link| Some((link.mac?, link.mtu)));
    match (neighbour, link) {
        (Some(destination), Some((source, link_mtu))) => {
            let mtu = route_mtu.map_or(link_mtu, |mtu| mtu.min(link_mtu));
            HopState::Resolved(Hop { destination, source, interface: index, mtu })
        }
        (None, _) | (_, None) => HopState::Unresolved { next_hop, interface: name(index, links) },
    }
}

fn name(index: InterfaceIndex, links: &BTreeMap<InterfaceIndex, Link>) -> String {
    links.get(&index).map_or_else(|| format!("interface {index}"), |link| link.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::LinkMode;

    const OURS: Mac = Mac([1; 3]);
    const THEIRS: Mac = Mac([2; 3]);
    const LO: InterfaceIndex = InterfaceIndex(1);
    const ETH0: InterfaceIndex = InterfaceIndex(2);
    const ETH1: InterfaceIndex = InterfaceIndex(3);

    #[test]
    fn every_case_has_the_expected_result() {
        let on_link = via(ETH0, "10.0.0.11", None);
        let resolved =
            |mtu| HopState::Resolved(Hop { destination: THEIRS, source: OURS, interface: ETH0, mtu });
        let unresolved = |address: &str| unresolved(address, "eth0");
        let cases = [
            ("fresh", on_link, Some(Neighbour::Fresh(THEIRS)), resolved(1500)),
            ("stale is good enough", on_link, Some(Neighbour::Stale(THEIRS)), resolved(1500)),
            ("fixed", on_link, Some(Neighbour::Fixed(THEIRS)), resolved(1500)),
            ("being asked for", on_link, Some(Neighbour::Incomplete), unresolved("10.0.0.11")),
            ("failed", on_link, Some(Neighbour::Failed), unresolved("10.0.0.11")),
            ("without an entry", on_link, None, unresolved("10.0.0.11")),
            (
                "a gateway, of the other family too",
                via(ETH0, "fe80::1", None),
                Some(Neighbour::Fresh(THEIRS)),
                resolved(1500),
            ),
            (
                "a smaller route MTU",
                via(ETH0, "10.0.0.11", Some(1400)),
                Some(Neighbour::Fresh(THEIRS)),
                resolved(1400),
            ),
            (
                "a larger route MTU",
                via(ETH0, "10.0.0.11", Some(9000)),
                Some(Neighbour::Fresh(THEIRS)),
                resolved(1500),
            ),
            ("not attached", via(ETH1, "10.0.0.11", None), Some(Neighbour::Fresh(THEIRS)), outside("eth1")),
            ("unknown link", via(InterfaceIndex(9), "10.0.0.11", None), None, outside("interface 9")),
            (
                "through an interface that is not Ethernet",
                via(LO, "10.0.0.11", None),
                None,
                not_ethernet("lo"),
            ),
            ("our own address", Route::Local, None, HopState::Local),
            ("no route", Route::Missing, None, HopState::NoRoute),
        ];
        for (case, route, neighbour, expected) in cases {
            let neighbours = route.place().zip(neighbour).into_iter().collect();

            let state = resolve(route, &links(), &neighbours, &[attached(ETH0)]);

            assert_eq!(state, expected, "{case}");
        }
    }

    #[test]
    fn a_neighbour_counts_only_on_the_interface_of_the_route() {
        let elsewhere = BTreeMap::from([((ETH1, "10.0.0.11".parse().unwrap()), Neighbour::Fresh(THEIRS))]);

        let state = resolve(via(ETH0, "10.0.0.11", None), &links(), &elsewhere, &[attached(ETH0)]);

        assert_eq!(state, unresolved("10.0.0.11", "eth0"));
    }

    fn via(interface: InterfaceIndex, next_hop: &str, mtu: Option<u32>) -> Route {
        Route::Via { interface, next_hop: next_hop.parse().unwrap(), mtu }
    }

    fn unresolved(next_hop: &str, interface: &str) -> HopState {
        HopState::Unresolved { next_hop: next_hop.parse().unwrap(), interface: interface.to_owned() }
    }

    fn outside(interface: &str) -> HopState {
        HopState::Outside { interface: interface.to_owned(), is_ethernet: true }
    }

    fn not_ethernet(interface: &str) -> HopState {
        HopState::Outside { interface: interface.to_owned(), is_ethernet: false }
    }

    fn links() -> BTreeMap<InterfaceIndex, Link> {
        let link = |name: &str, mac| Link { name: name.to_owned(), mac, mtu: 1500, is_up: true };
        BTreeMap::from([
            (LO, link("lo", None)),
            (ETH0, link("eth0", Some(OURS))),
            (ETH1, link("eth1", Some(OURS))),
        ])
    }

    fn attached(index: InterfaceIndex) -> Attached {
        Attached { name: format!("eth{}", index.0 - 2), index, mode: LinkMode::Native, mtu: 1500, mac: OURS }
    }
}
