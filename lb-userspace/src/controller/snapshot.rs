//! Snapshots: how a step changes one, and which are safe to forward by.

use lb_common::{limits::MAX_BACKENDS, service::Service};

use crate::datapath::{Op, Snapshot};

/// The slot of the `BACKENDS` array that an id lies in.
pub const fn slot(id: u32) -> u32 {
    id % MAX_BACKENDS
}

impl Snapshot {
    /// Takes one step.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::PutInterface(index, interface) => drop(self.interfaces.insert(*index, *interface)),
            Op::PutBackendName(number, name) => drop(self.backend_names.insert(*number, name.clone())),
            Op::PutServiceName(number, name) => drop(self.service_names.insert(*number, name.clone())),
            Op::PutBackend(backend) => drop(self.backends.insert(slot(backend.id), *backend)),
            Op::PutTable(number, table) => drop(self.tables.insert(*number, table.clone())),
            Op::PutPool(pool, table) => drop(self.pools.insert(*pool, *table)),
            Op::PutService(listen, service) => drop(self.services.insert(*listen, *service)),
            Op::SetNextBackendId(id) => self.next_backend_id = *id,
            Op::SetHopGeneration(generation) => self.hop_generation = *generation,
            Op::DeleteService(listen) => drop(self.services.remove(listen)),
            Op::DeletePool(pool) => drop(self.pools.remove(pool)),
            Op::DeleteTable(number) => drop(self.tables.remove(number)),
            Op::DeleteBackend(slot) => drop(self.backends.remove(slot)),
            Op::DeleteServiceName(number) => drop(self.service_names.remove(number)),
            Op::DeleteBackendName(number) => drop(self.backend_names.remove(number)),
            Op::DeleteInterface(index) => drop(self.interfaces.remove(index)),
        }
    }

    /// The backend that speaks for an id.
    pub fn backend(&self, id: u32) -> Option<&lb_common::backend::Backend> {
        self.backends.get(&slot(id)).filter(|backend| backend.id == id)
    }

    /// The ids that a pool gives new flows to.
    pub fn offered(&self, pool: u32) -> &[u32] {
        let table = self.pools.get(&pool).and_then(|table| self.tables.get(table));
        table.map_or(&[], |table| &table.backends)
    }

    /// Can the program forward by this? Whatever a packet can reach exists, and belongs to the service that it dialled.
    pub fn is_safe(&self) -> bool {
        self.fault().is_none()
    }

    /// What is not [safe](Snapshot::is_safe), in words.
    pub fn fault(&self) -> Option<String> {
        let faults = [self.fault_of_services(), self.fault_of_pools(), self.fault_of_backends()];
        faults.into_iter().flatten().next()
    }

    fn fault_of_services(&self) -> Option<String> {
        self.services.iter().find_map(|(listen, service)| {
            if !self.service_names.contains_key(&service.counters) {
                return Some(format!("{listen} has counters {}, which have no name", service.counters));
            }
            if service.pool == Service::NO_POOL {
                return (listen.port.get() != 0).then(|| format!("{listen} leads nowhere"));
            }
            let Some(table) = self.pools.get(&service.pool).and_then(|table| self.tables.get(table)) else {
                return Some(format!("{listen} leads to pool {}, which has no table", service.pool));
            };
            let stranger = table.backends.iter().find(|id| {
                self.backend(**id).is_none_or(|backend| backend.service_counters != service.counters)
            })?;
            Some(format!("{listen} reaches backend {stranger}, which is none of its service"))
        })
    }

    fn fault_of_pools(&self) -> Option<String> {
        self.pools.iter().find_map(|(pool, number)| {
            let Some(table) = self.tables.get(number) else {
                return Some(format!("pool {pool} names table {number}, which does not exist"));
            };
            let missing = table.backends.iter().find(|id| self.backend(**id).is_none())?;
            Some(format!("table {number} of pool {pool} names backend {missing}, which does not exist"))
        })
    }

    fn fault_of_backends(&self) -> Option<String> {
        self.backends.iter().find_map(|(at, backend)| {
            if backend.id == 0 || slot(backend.id) != *at {
                return Some(format!("backend {} lies in slot {at}", backend.id));
            }
            let named = self.backend_names.contains_key(&backend.counters)
                && self.service_names.contains_key(&backend.service_counters);
            if !named {
                return Some(format!("backend {} has no name", backend.id));
            }
            let leaves = backend.hop.interface;
            (leaves != 0 && !self.interfaces.contains_key(&leaves)).then(|| {
                format!("backend {} is reached through interface {leaves}, which is not ours", backend.id)
            })
        })
    }
}
