//! Which part of the maps may differ from the state.

use std::collections::BTreeSet;

/// What a plan has to look at. Planning for a few services is much cheaper than planning for thousands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The backends and pools of these services, by name, and the pools, slots and source sets that no packet reads
    /// any more. The services have the same names, listen addresses, protocols, modes and sources as in the maps.
    Services(BTreeSet<String>),
    /// Everything.
    All,
}

impl Scope {
    /// Extends it to another part.
    pub fn extend(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Services(names), Self::Services(others)) => names.extend(others),
            (_, Self::All) => *self = Self::All,
            (Self::All, Self::Services(_)) => {}
        }
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::Services(BTreeSet::new())
    }
}
