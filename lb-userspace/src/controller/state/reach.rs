//! How backends are reached: the routes from netlink, and the last working next hops.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::hop::Hop;

use crate::{
    datapath::Attached,
    event::{HopState, Path},
};

#[derive(Clone, Debug, Default)]
pub struct Reach {
    seen: BTreeMap<Path, HopState>,
    /// The last next hop that was resolved, or was found in the maps.
    last: BTreeMap<Path, Hop>,
}

impl Reach {
    /// Returns whether anything changed.
    pub fn learn(&mut self, seen: BTreeMap<Path, HopState>) -> bool {
        for (path, state) in &seen {
            if let HopState::Resolved(hop) = state {
                self.last.insert(*path, *hop);
            }
        }
        let is_new = self.seen != seen;
        self.seen = seen;
        is_new
    }

    /// A next hop found in the maps. It is used until netlink reports another.
    pub fn adopt(&mut self, path: Path, hop: Hop) {
        self.last.insert(path, hop);
    }

    /// Removes other addresses. Reports about these addresses are kept: netlink may not repeat them for an
    /// address that was removed and added again.
    pub fn retain_addresses(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.last.retain(|path, _| addresses.contains(&path.to));
    }

    /// The next hop of a path, through an attached interface.
    ///
    /// The kernel deletes neighbour entries that have not been confirmed for a while. As long as the route uses the
    /// same interface, the last next hop is kept: probes show whether the backend answers.
    ///
    /// If the source has just changed, the next hop from another source is used until netlink reports.
    pub fn hop(&self, path: Path, attached: &[Attached]) -> Option<Hop> {
        let through = |hop: &Hop| attached.iter().find(|interface| interface.index == hop.interface);
        let last = || self.last.get(&path).copied();
        let hop = match self.seen.get(&path) {
            Some(HopState::Resolved(hop)) => Some(*hop),
            Some(HopState::Unresolved { interface, .. }) => {
                last().filter(|hop| through(hop).is_some_and(|it| it.name == *interface))
            }
            Some(HopState::Outside { .. } | HopState::Local | HopState::NoRoute) => None,
            None => last().or_else(|| self.last_to(path.to)),
        };
        hop.filter(|hop| through(hop).is_some())
    }

    fn last_to(&self, address: IpAddr) -> Option<Hop> {
        let mut paths = self.last.range(Path { to: address, from: None }..);
        paths.next().filter(|(path, _)| path.to == address).map(|(_, hop)| *hop)
    }

    /// Netlink's report about a path. `None`: nothing yet.
    pub fn seen(&self, path: Path) -> Option<&HopState> {
        self.seen.get(&path)
    }
}
