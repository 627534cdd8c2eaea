//! The backends that get new flows, per family.

use std::net::IpAddr;

use lb_common::backend::BackendId;

/// IPv4 and IPv6 are scheduled separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The eligible ids of a service in one family.
#[derive(Default)]
pub struct Schedule {
    regular: Vec<BackendId>,
    backup: Vec<BackendId>,
}

impl Schedule {
    pub fn add(&mut self, id: BackendId, is_backup: bool) {
        let list = if is_backup { &mut self.backup } else { &mut self.regular };
        list.push(id);
    }

    /// Backups only if there is no other.
    pub fn in_force(self) -> Vec<BackendId> {
        if self.regular.is_empty() { self.backup } else { self.regular }
    }
}
