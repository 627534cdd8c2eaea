//! The part of a snapshot that belongs to some services.

use std::collections::BTreeSet;

use lb_common::{
    backend::Backend,
    counters::{BackendNumber, ServiceNumber},
};

use super::state::Grace;
use crate::{
    datapath::{Listen, ServiceValue, Snapshot},
    spec::{BackendName, Service},
};

/// Services of a snapshot.
pub struct Part<'a> {
    have: &'a Snapshot,
    names: BTreeSet<&'a str>,
    numbers: BTreeSet<ServiceNumber>,
}

impl<'a> Part<'a> {
    /// These services, by their numbers.
    pub fn of(have: &'a Snapshot, services: &[(&Service, ServiceNumber)]) -> Self {
        let numbers: BTreeSet<ServiceNumber> = services.iter().map(|(_, number)| *number).collect();
        let names = numbers.iter().filter_map(|number| have.service_names.get(number)).map(String::as_str);
        Self { have, names: names.collect(), numbers }
    }

    /// The names of their backends, by counter number.
    pub fn backend_names(&self) -> impl Iterator<Item = (&'a BackendNumber, &'a BackendName)> {
        self.have.backend_names.iter().filter(|(_, name)| self.names.contains(name.service.as_str()))
    }

    /// Their backends.
    pub fn backends(&self) -> impl Iterator<Item = (&'a u32, &'a Backend)> + Clone {
        self.have.backends.iter().filter(|(_, backend)| self.numbers.contains(&backend.service_counters))
    }

    /// Their listen addresses and markers.
    pub fn services(&self) -> impl Iterator<Item = (&'a Listen, &'a ServiceValue)> + Clone {
        self.have.services.iter().filter(|(_, service)| self.numbers.contains(&service.counters))
    }

    /// Their backends and pools, and the pools, slots and source sets that no packet can be reading.
    pub fn snapshot(&self, grace: &Grace) -> Snapshot {
        let pools = self.services().filter_map(|(_, service)| self.have.pools.get_key_value(&service.pool));
        Snapshot {
            backends: self.backends().map(|(place, backend)| (*place, *backend)).collect(),
            backend_names: self.backend_names().map(|(number, name)| (*number, name.clone())).collect(),
            slots: self.have.slots_unread(grace),
            sources: self.have.sources_unread(grace),
            pools: pools
                .map(|(number, pool)| (*number, *pool))
                .chain(self.have.pools_unread(grace))
                .collect(),
            next_backend_id: self.have.next_backend_id,
            ..Snapshot::default()
        }
    }
}
