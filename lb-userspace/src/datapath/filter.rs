//! The filter that tells most strange packets at the price of one byte: derived from what is listened on and served.
//!
//! A set bit may lie, a clear one never does. So a change sets the bits of what comes before it comes, and clears the
//! bits of what goes after it is gone: in between the filter is the [`union`] of both.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    backend::Backend,
    limits::MAX_BACKENDS,
    net::{Address, Be16},
    service::Filter,
};

use super::{Listen, Op, Snapshot};

/// An address and a port.
type Endpoint = (Address, Be16);

/// What the filter is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    listens: BTreeSet<Listen>,
    /// By slot.
    backends: BTreeMap<u32, Endpoint>,
}

impl Sources {
    /// Everything that is in the maps.
    pub fn of(maps: &Snapshot) -> Self {
        Self {
            listens: maps.services.keys().copied().collect(),
            backends: maps.backends.iter().map(|(slot, backend)| (*slot, endpoint(backend))).collect(),
        }
    }

    /// Takes one step. Returns whether anything changed.
    pub fn apply(&mut self, op: &Op) -> bool {
        match op {
            Op::PutService(listen, _) => self.listens.insert(*listen),
            Op::DeleteService(listen) => self.listens.remove(listen),
            Op::PutBackend(backend) => {
                let endpoint = endpoint(backend);
                self.backends.insert(backend.id % MAX_BACKENDS, endpoint) != Some(endpoint)
            }
            Op::DeleteBackend(slot) => self.backends.remove(slot).is_some(),
            Op::PutInterface(..)
            | Op::PutBackendName(..)
            | Op::PutServiceName(..)
            | Op::PutSlots(..)
            | Op::PutSources(..)
            | Op::PutPool(..)
            | Op::SetNextBackendId(_)
            | Op::SetHopGeneration(_)
            | Op::DeletePool(_)
            | Op::DeleteSlots(_)
            | Op::DeleteSources(_)
            | Op::DeleteServiceName(_)
            | Op::DeleteBackendName(_)
            | Op::DeleteInterface(_) => false,
        }
    }

    /// The filter that lets all of these by.
    pub fn filter(&self) -> Filter {
        let mut filter = Filter::NOTHING;
        // Port 0 marks an address that is ours, and is no port that packets go to.
        for listen in self.listens.iter().filter(|listen| listen.port.get() != 0) {
            set(&mut filter, (listen.address.into(), listen.port), Filter::SERVICE);
        }
        for endpoint in self.backends.values() {
            set(&mut filter, *endpoint, Filter::BACKEND);
        }
        filter
    }
}

/// The filter that lets by what either does.
pub fn union(one: &Filter, other: &Filter) -> Filter {
    let mut both = *one;
    for (byte, bits) in both.byte.iter_mut().zip(other.byte) {
        *byte |= bits;
    }
    both
}

fn endpoint(backend: &Backend) -> Endpoint {
    (backend.address, backend.port)
}

fn set(filter: &mut Filter, (address, port): Endpoint, bit: u8) {
    filter.byte[Filter::index(Filter::fold(address), port)] |= bit;
}

#[cfg(test)]
mod tests {
    use lb_common::{net::Protocol, service::Service};

    use super::*;
    use crate::datapath::ServiceValue;

    #[test]
    fn what_is_listened_on_and_served_has_its_bits_and_nothing_else_has() {
        let mut sources = Sources::default();
        for listen in ["192.0.2.10:80", "[2001:db8::10]:443", "192.0.2.10:0"] {
            assert!(sources.apply(&Op::PutService(listen_at(listen), SERVICE)));
        }
        assert!(sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080"))));

        let filter = sources.filter();

        assert_eq!(bits(&filter, "192.0.2.10:80"), Filter::SERVICE);
        assert_eq!(bits(&filter, "[2001:db8::10]:443"), Filter::SERVICE);
        assert_eq!(bits(&filter, "10.0.0.11:8080"), Filter::BACKEND);
        assert_eq!(filter.byte.iter().filter(|byte| **byte != 0).count(), 3);
    }

    #[test]
    fn what_has_gone_leaves_no_bits_behind() {
        let mut sources = Sources::default();
        sources.apply(&Op::PutService(listen_at("192.0.2.10:80"), SERVICE));
        sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080")));

        assert!(sources.apply(&Op::PutBackend(backend(1 + MAX_BACKENDS, "10.0.0.12:8080"))));
        assert_eq!(bits(&sources.filter(), "10.0.0.11:8080"), 0);
        assert!(sources.apply(&Op::DeleteBackend(1)));
        assert!(sources.apply(&Op::DeleteService(listen_at("192.0.2.10:80"))));
        assert_eq!(sources.filter(), Filter::NOTHING);
    }

    #[test]
    fn a_step_that_moves_no_endpoint_changes_nothing() {
        let mut sources = Sources::default();
        sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080")));

        assert!(!sources.apply(&Op::PutBackend(Backend { accepts: 1, ..backend(1, "10.0.0.11:8080") })));
        assert!(!sources.apply(&Op::SetHopGeneration(7)));
    }

    #[test]
    fn the_union_has_the_bits_of_both() {
        let mut one = Sources::default();
        one.apply(&Op::PutService(listen_at("192.0.2.10:80"), SERVICE));
        let mut other = Sources::default();
        other.apply(&Op::PutBackend(backend(1, "192.0.2.10:80")));

        let both = union(&one.filter(), &other.filter());

        assert_eq!(bits(&both, "192.0.2.10:80"), Filter::SERVICE | Filter::BACKEND);
    }

    const SERVICE: ServiceValue = ServiceValue { pool: Service::NO_POOL, counters: 0 };

    fn parts(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        (address.ip().into(), Be16::new(address.port()))
    }

    fn bits(filter: &Filter, text: &str) -> u8 {
        let (address, port) = parts(text);
        filter.byte[Filter::index(Filter::fold(address), port)]
    }

    fn listen_at(text: &str) -> Listen {
        let (address, port) = parts(text);
        Listen { address: address.to_ip(), port, protocol: Protocol::Tcp }
    }

    fn backend(id: u32, text: &str) -> Backend {
        let (address, port) = parts(text);
        Backend { id, address, port, ..Backend::default() }
    }
}
