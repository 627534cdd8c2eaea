//! A snapshot indexed by name and by address.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{
    backend::{Backend, BackendId},
    counters::{BackendNumber, ServiceNumber},
    net::Protocol,
    service::Service,
};

use super::{compile::Family, part::Part};
use crate::{
    datapath::{Listen, ServiceValue, Snapshot},
    spec::{self, BackendName},
};

/// The numbers of names, addresses and pools.
pub struct Index<'a> {
    names: BTreeMap<&'a BackendName, BackendNumber>,
    backends: BTreeMap<BackendNumber, &'a Backend>,
    /// By number of the service, and address.
    places: BTreeMap<(ServiceNumber, SocketAddr), &'a Backend>,
    pools: BTreeMap<(ServiceNumber, Family), u32>,
    protocols: BTreeMap<ServiceNumber, Vec<Protocol>>,
}

impl<'a> Index<'a> {
    /// Of everything.
    pub fn of(have: &'a Snapshot) -> Self {
        Self::build(have, have.backend_names.iter(), have.backends.iter(), have.services.iter())
    }

    /// Of these services, by their numbers in the maps, under the names that they have there.
    pub fn of_services(have: &'a Snapshot, services: &[(&spec::Service, ServiceNumber)]) -> Self {
        let part = Part::of(have, services);
        Self::build(have, part.backend_names(), part.backends(), part.services())
    }

    fn build(
        have: &Snapshot,
        names: impl Iterator<Item = (&'a BackendNumber, &'a BackendName)>,
        backends: impl Iterator<Item = (&'a u32, &'a Backend)> + Clone,
        services: impl Iterator<Item = (&'a Listen, &'a ServiceValue)> + Clone,
    ) -> Self {
        let mut protocols: BTreeMap<ServiceNumber, Vec<Protocol>> = BTreeMap::new();
        for (listen, service) in services.clone() {
            protocols.entry(service.counters).or_default().push(listen.protocol);
        }
        let real = services.filter(|(_, service)| service.pool != Service::NO_POOL);
        let (next_id, backends) = (have.next_backend_id, backends.map(|(_, backend)| backend));

        Self {
            names: names.map(|(number, name)| (name, *number)).collect(),
            backends: newest_by(next_id, backends.clone(), |backend| backend.counters),
            places: newest_by(next_id, backends, |backend| {
                (backend.service_counters, SocketAddr::new(backend.address.to_ip(), backend.port.get()))
            }),
            pools: real
                .map(|(it, service)| ((service.counters, Family::of(it.address)), service.pool))
                .collect(),
            protocols,
        }
    }

    pub fn backend_number(&self, name: &BackendName) -> Option<BackendNumber> {
        self.names.get(name).copied()
    }

    /// The backend at an address of the service with this number, whatever its name.
    pub fn backend_at(&self, service: ServiceNumber, address: SocketAddr) -> Option<&'a Backend> {
        self.places.get(&(service, address)).copied()
    }

    /// The backend with a name, if it has an entry.
    pub fn backend_named(&self, name: &BackendName) -> Option<&'a Backend> {
        self.backend(self.backend_number(name)?)
    }

    /// The backend with a counter number.
    pub fn backend(&self, counters: BackendNumber) -> Option<&'a Backend> {
        self.backends.get(&counters).copied()
    }

    pub fn pool(&self, service: ServiceNumber, family: Family) -> Option<u32> {
        self.pools.get(&(service, family)).copied()
    }

    /// Was the service in the maps under another protocol?
    pub fn has_other_protocol(&self, service: ServiceNumber, protocol: Protocol) -> bool {
        self.protocols.get(&service).is_some_and(|all| all.iter().any(|it| *it != protocol))
    }
}

/// An interrupted plan can leave two backends with one name or address: the old one and its replacement. Ids count
/// up, so the replacement is the one closest below the next id.
fn newest_by<'a, K: Ord>(
    next_id: BackendId,
    backends: impl Iterator<Item = &'a Backend>,
    key: impl Fn(&Backend) -> K,
) -> BTreeMap<K, &'a Backend> {
    let age = |backend: &Backend| backend.id.age(next_id);
    let mut newest: BTreeMap<K, &Backend> = BTreeMap::new();
    for backend in backends {
        let there = newest.entry(key(backend)).or_insert(backend);
        if age(backend) < age(there) {
            *there = backend;
        }
    }
    newest
}
