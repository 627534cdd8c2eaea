//! The backends that get new flows, per family.

use lb_common::backend::BackendId;

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
