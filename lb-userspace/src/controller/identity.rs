//! Matches services and backends with former ones, whatever their names.
//!
//! A service is identified by its protocol and listen addresses, a backend by its address and port within its service.
//! Both can be renamed, even to each other's names, and keep their flows. Names decide only as a last resort: a service
//! whose listen addresses match no former service is matched by name, if no other service matches that one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use lb_common::{counters::ServiceNumber, net::Be16, service::Service as Entry};

use crate::{
    datapath::{Listen, Snapshot},
    shared::Shared,
    spec::{Backend, Service, Spec},
};

/// The former services, each with a key: a number in the maps, or an index in a spec.
#[derive(Debug, Default)]
pub struct Former<'a, K> {
    by_name: BTreeMap<&'a str, K>,
    by_listen: BTreeMap<Listen, K>,
}

impl<'a> Former<'a, ServiceNumber> {
    /// By counter number.
    pub fn in_maps(have: &'a Snapshot) -> Self {
        let real = have.services.iter().filter(|(_, service)| service.pool != Entry::NO_POOL);
        Self {
            by_name: have.service_names.iter().map(|(number, name)| (name.as_str(), *number)).collect(),
            by_listen: real.map(|(listen, service)| (*listen, service.counters)).collect(),
        }
    }
}

impl<'a> Former<'a, usize> {
    /// By index in the spec.
    pub fn in_spec(spec: &'a Spec) -> Self {
        let services = || spec.services.iter().enumerate();
        Self {
            by_name: services().map(|(place, service)| (service.name.as_str(), place)).collect(),
            by_listen: services()
                .flat_map(|(place, service)| listens(service).map(move |listen| (listen, place)))
                .collect(),
        }
    }
}

impl<K: Copy + Ord> Former<'_, K> {
    /// The former service of each of these services, in their order. No two have the same one.
    pub fn of_each(&self, services: &[Shared<Service>]) -> Vec<Option<K>> {
        let ways: [fn(&Self, &Service) -> Vec<K>; 3] =
            [Self::same_in_both, Self::same_listen, Self::same_name];
        let mut taken = BTreeSet::new();
        let mut found = vec![None; services.len()];
        for way in ways {
            for (service, found) in services.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                *found = way(self, service).into_iter().find(|key| taken.insert(*key));
            }
        }
        found
    }

    fn same_in_both(&self, service: &Service) -> Vec<K> {
        let named = self.same_name(service);
        self.same_listen(service).into_iter().filter(|key| named.contains(key)).collect()
    }

    fn same_listen(&self, service: &Service) -> Vec<K> {
        listens(service).filter_map(|listen| self.by_listen.get(&listen).copied()).collect()
    }

    fn same_name(&self, service: &Service) -> Vec<K> {
        self.by_name.get(service.name.as_str()).copied().into_iter().collect()
    }
}

/// Are these the same services, with the same names, listen addresses, modes, sources, answers and ways to share flows? Then
/// only what belongs to single services differs.
pub fn are_same(before: &[Shared<Service>], after: &[Shared<Service>]) -> bool {
    let is_same = |(old, new): (&Shared<Service>, &Shared<Service>)| {
        if old.is_same(new) {
            return true;
        }
        old.name == new.name
            && old.listen == new.listen
            && old.protocol == new.protocol
            && old.mode == new.mode
            && old.sources == new.sources
            && old.peer_sources == new.peer_sources
            && old.reject == new.reject
            && old.share_flows == new.share_flows
    };
    before.len() == after.len() && before.iter().zip(after).all(is_same)
}

/// The number of a service whose listen addresses are in the maps.
pub fn number(have: &Snapshot, service: &Service) -> Option<ServiceNumber> {
    listens(service).find_map(|listen| Some(have.services.get(&listen)?.counters))
}

/// The backends of a service by address.
pub fn by_address(service: &Service) -> BTreeMap<SocketAddr, &Backend> {
    service.backends.iter().map(|backend| (backend.address, backend)).collect()
}

/// The backends of a service by name.
pub fn by_name(service: &Service) -> BTreeMap<&str, &Backend> {
    service.backends.iter().map(|backend| (backend.name.as_str(), backend)).collect()
}

fn listens(service: &Service) -> impl Iterator<Item = Listen> {
    let protocol = service.protocol;
    service.listen.iter().map(move |it| Listen { address: it.ip(), port: Be16::new(it.port()), protocol })
}

#[cfg(test)]
mod tests {
    use lb_common::net::Protocol;

    use super::*;
    use crate::controller::fixture::{service, socket, spec};

    #[test]
    fn a_service_is_identified_by_its_listen_addresses_then_by_its_name() {
        let before = spec(vec![at("a", &["80", "443"]), at("b", &["81"]), at("c", &["82"])]);
        type Case<'a> = (&'a str, Vec<Shared<Service>>, &'a [Option<usize>]);
        let cases: &[Case<'_>] = &[
            ("the same", before.services.clone(), &[Some(0), Some(1), Some(2)]),
            ("renamed", shared(vec![at("x", &["80", "443"])]), &[Some(0)]),
            ("swapped names", shared(vec![at("b", &["80", "443"]), at("a", &["81"])]), &[Some(0), Some(1)]),
            ("split: the name decides", shared(vec![at("x", &["80"]), at("a", &["443"])]), &[None, Some(0)]),
            ("split under other names", shared(vec![at("x", &["80"]), at("y", &["443"])]), &[Some(0), None]),
            ("moved", shared(vec![at("a", &["90"])]), &[Some(0)]),
            ("moved to the place of another", shared(vec![at("a", &["81"])]), &[Some(1)]),
            ("another", shared(vec![at("x", &["90"])]), &[None]),
        ];

        for (about, after, expected) in cases {
            assert_eq!(Former::in_spec(&before).of_each(after), *expected, "{about}");
        }
        let udp = shared(vec![Service { protocol: Protocol::Udp, ..at("x", &["81"]) }]);
        assert_eq!(Former::in_spec(&before).of_each(&udp), [None], "another protocol");
    }

    fn at(name: &str, ports: &[&str]) -> Service {
        let listen = ports.iter().map(|port| socket(&format!("192.0.2.10:{port}"))).collect();
        Service { listen, ..service(name, Protocol::Tcp, "192.0.2.10:1", Vec::new()) }
    }

    fn shared(services: Vec<Service>) -> Vec<Shared<Service>> {
        services.into_iter().map(Into::into).collect()
    }
}
