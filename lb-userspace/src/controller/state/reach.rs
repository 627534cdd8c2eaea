//! How backends are reached: the routes from netlink, and the last next hop that worked.

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
    /// The last hop that was resolved, or was found in the maps.
    last: BTreeMap<Path, Hop>,
}

impl Reach {
    /// Returns whether anything is new.
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

    /// A next hop that was found in the maps: it is used until netlink reports another.
    pub fn adopt(&mut self, path: Path, hop: Hop) {
        self.last.insert(path, hop);
    }

    /// What netlink says of other addresses stays until it says something else: an address that is removed and added again
    /// may be no news to it, and it would not say the same again.
    pub fn forget_all_but(&mut self, wanted: &BTreeSet<IpAddr>) {
        self.last.retain(|path, _| wanted.contains(&path.to));
    }

    /// The way to the end of a path, through an interface that is ours.
    ///
    /// The kernel forgets neighbours that it does not hear of for a while. As long as the route leaves through the
    /// same interface, the last way stays: whether anybody is there is what the probes find out.
    ///
    /// Where the source has just changed, the way from another one is as good until netlink has looked.
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

    /// Netlink's report of a path; `None`: nothing yet.
    pub fn seen(&self, path: Path) -> Option<&HopState> {
        self.seen.get(&path)
    }
}
