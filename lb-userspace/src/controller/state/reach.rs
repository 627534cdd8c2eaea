//! How backends are reached: what netlink says, and the last way that worked.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::hop::Hop;

use crate::{datapath::Attached, event::HopState};

#[derive(Clone, Debug, Default)]
pub struct Reach {
    seen: BTreeMap<IpAddr, HopState>,
    /// The last hop that was resolved, or was found in the maps.
    last: BTreeMap<IpAddr, Hop>,
}

impl Reach {
    /// Returns whether anything is new.
    pub fn learn(&mut self, seen: BTreeMap<IpAddr, HopState>) -> bool {
        for (address, state) in &seen {
            if let HopState::Resolved(hop) = state {
                self.last.insert(*address, *hop);
            }
        }
        let is_new = self.seen != seen;
        self.seen = seen;
        is_new
    }

    /// A way that was found in the maps: it holds until netlink says otherwise.
    pub fn adopt(&mut self, address: IpAddr, hop: Hop) {
        self.last.insert(address, hop);
    }

    pub fn forget_all_but(&mut self, wanted: &BTreeSet<IpAddr>) {
        self.seen.retain(|address, _| wanted.contains(address));
        self.last.retain(|address, _| wanted.contains(address));
    }

    /// The way to an address, through an interface that is ours.
    ///
    /// The kernel forgets neighbours that it does not hear of for a while. As long as the route leaves through the
    /// same interface, the last way stays: whether anybody is there is what the probes find out.
    pub fn hop(&self, address: IpAddr, attached: &[Attached]) -> Option<Hop> {
        let through = |hop: &Hop| attached.iter().find(|interface| interface.index == hop.interface);
        let last = || self.last.get(&address).copied();
        let hop = match self.seen.get(&address) {
            Some(HopState::Resolved(hop)) => Some(*hop),
            Some(HopState::Unresolved { interface, .. }) => {
                last().filter(|hop| through(hop).is_some_and(|it| it.name == *interface))
            }
            Some(HopState::Outside { .. } | HopState::Local | HopState::NoRoute) => None,
            None => last(),
        };
        hop.filter(|hop| through(hop).is_some())
    }

    /// What netlink says of an address; `None`: nothing yet.
    pub fn seen(&self, address: IpAddr) -> Option<&HopState> {
        self.seen.get(&address)
    }
}
