//! A snapshot indexed by name and by address.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{backend::Backend, limits::MAX_BACKEND_ID, net::Protocol, service::Service};

use super::compile::Family;
use crate::{datapath::Snapshot, spec::BackendName};

/// The numbers of names, addresses and pools.
pub struct Index<'a> {
    names: BTreeMap<&'a BackendName, u32>,
    backends: BTreeMap<u32, &'a Backend>,
    /// By number of the service, and address.
    places: BTreeMap<(u32, SocketAddr), &'a Backend>,
    pools: BTreeMap<(u32, Family), u32>,
    protocols: BTreeMap<u32, Vec<Protocol>>,
}

impl<'a> Index<'a> {
    pub fn of(have: &'a Snapshot) -> Self {
        let mut protocols: BTreeMap<u32, Vec<Protocol>> = BTreeMap::new();
        for (listen, service) in &have.services {
            protocols.entry(service.counters).or_default().push(listen.protocol);
        }
        let real = have.services.iter().filter(|(_, service)| service.pool != Service::NO_POOL);

        Self {
            names: have.backend_names.iter().map(|(number, name)| (name, *number)).collect(),
            backends: newest_by(have, |backend| backend.counters),
            places: newest_by(have, |backend| {
                (backend.service_counters, SocketAddr::new(backend.address.to_ip(), backend.port.get()))
            }),
            pools: real
                .map(|(it, service)| ((service.counters, Family::of(it.address)), service.pool))
                .collect(),
            protocols,
        }
    }

    pub fn backend_number(&self, name: &BackendName) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// The backend at an address of the service with this number, whatever its name.
    pub fn backend_at(&self, service: u32, address: SocketAddr) -> Option<&'a Backend> {
        self.places.get(&(service, address)).copied()
    }

    /// The backend with a name, if it has an entry.
    pub fn backend_named(&self, name: &BackendName) -> Option<&'a Backend> {
        self.backend(self.backend_number(name)?)
    }

    /// The backends that have an entry.
    pub fn entries(&self) -> impl Iterator<Item = &'a Backend> {
        self.backends.values().copied()
    }

    /// The backend with a counter number.
    pub fn backend(&self, counters: u32) -> Option<&'a Backend> {
        self.backends.get(&counters).copied()
    }

    pub fn pool(&self, service: u32, family: Family) -> Option<u32> {
        self.pools.get(&(service, family)).copied()
    }

    /// Was the service in the maps under another protocol?
    pub fn has_other_protocol(&self, service: u32, protocol: Protocol) -> bool {
        self.protocols.get(&service).is_some_and(|all| all.iter().any(|it| *it != protocol))
    }
}

/// An interrupted plan can leave two backends with one name or address: the old one and its replacement. Ids count
/// up, so the replacement is the one closest below the next id.
fn newest_by<K: Ord>(have: &Snapshot, key: impl Fn(&Backend) -> K) -> BTreeMap<K, &Backend> {
    let age = |backend: &Backend| have.next_backend_id.wrapping_sub(backend.id) % MAX_BACKEND_ID;
    let mut newest: BTreeMap<K, &Backend> = BTreeMap::new();
    for backend in have.backends.values() {
        let there = newest.entry(key(backend)).or_insert(backend);
        if age(backend) < age(there) {
            *there = backend;
        }
    }
    newest
}
