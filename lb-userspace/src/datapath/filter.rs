//! The prefilter, derived from listen addresses and backends.
//!
//! A set bit may be a false positive; there are no false negatives. So an operation sets the bits of what it adds
//! before it is applied, and clears the bits of what it removes afterwards.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    backend::Backend,
    limits::MAX_PLACES,
    net::{Address, Be16},
    service::Filter,
};

use super::{Listen, Op, Snapshot};

/// An address and a port.
type Endpoint = (Address, Be16);

/// A bit of the filter: the [place](Filter::place) of an endpoint, and its bit in that byte.
pub type Bit = (usize, u8);

/// How an operation changes the filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Bits to set before the operation.
    pub set: Option<Bit>,
    /// Bits to clear after it.
    pub clear: Option<Bit>,
}

/// The endpoints in the filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    listens: BTreeSet<Listen>,
    /// By place.
    backends: BTreeMap<u32, Endpoint>,
    /// How many endpoints set each bit.
    bits: BTreeMap<Bit, u32>,
}

impl Sources {
    /// All endpoints in the maps.
    pub fn of(maps: &Snapshot) -> Self {
        let mut sources = Self::default();
        for (listen, service) in &maps.services {
            sources.apply(&Op::PutService(*listen, *service));
        }
        for backend in maps.backends.values() {
            sources.apply(&Op::PutBackend(*backend));
        }
        sources
    }

    /// Records one operation.
    pub fn apply(&mut self, op: &Op) -> Change {
        match op {
            Op::PutService(listen, _) if self.listens.insert(*listen) => {
                Change { set: self.add(service(listen)), clear: None }
            }
            Op::DeleteService(listen) if self.listens.remove(listen) => {
                Change { set: None, clear: self.remove(service(listen)) }
            }
            Op::PutBackend(backend) => {
                let endpoint = endpoint(backend);
                let before = self.backends.insert(backend.id.place(MAX_PLACES), endpoint);
                let set = self.add(Some(bit(endpoint, Filter::BACKEND)));
                let before = before.map(|endpoint| bit(endpoint, Filter::BACKEND));
                Change { set, clear: self.remove(before) }
            }
            Op::DeleteBackend(place) => {
                let before = self.backends.remove(place);
                let before = before.map(|endpoint| bit(endpoint, Filter::BACKEND));
                Change { set: None, clear: self.remove(before) }
            }
            Op::PutService(..)
            | Op::DeleteService(_)
            | Op::PutInterface(..)
            | Op::PutBackendName(..)
            | Op::PutServiceName(..)
            | Op::PutSlots(..)
            | Op::PutSources(..)
            | Op::PutPool(..)
            | Op::SetNextBackendId(_)
            | Op::SetHopGeneration(_)
            | Op::SetHashKey(_)
            | Op::DeletePool(_)
            | Op::DeleteSlots(_)
            | Op::DeleteSources(_)
            | Op::DeleteServiceName(_)
            | Op::DeleteBackendName(_)
            | Op::DeleteInterface(_) => Change::default(),
        }
    }

    /// All bits that are set.
    pub fn bits(&self) -> impl Iterator<Item = Bit> {
        self.bits.keys().copied()
    }

    /// Returns the bit if it was clear before.
    fn add(&mut self, bit: Option<Bit>) -> Option<Bit> {
        let count = self.bits.entry(bit?).or_default();
        *count += 1;
        bit.filter(|_| *count == 1)
    }

    /// Returns the bit if it is clear now.
    fn remove(&mut self, bit: Option<Bit>) -> Option<Bit> {
        let count = self.bits.get_mut(&bit?)?;
        *count -= 1;
        if *count != 0 {
            return None;
        }
        self.bits.remove(&bit?);
        bit
    }
}

/// Port 0 marks an address of the load balancer. No packet is sent to it.
fn service(listen: &Listen) -> Option<Bit> {
    let endpoint = (listen.address.into(), listen.port);
    (listen.port.get() != 0).then(|| bit(endpoint, Filter::SERVICE))
}

fn bit((address, port): Endpoint, bit: u8) -> Bit {
    (Filter::place(Filter::fold(address), port), bit)
}

fn endpoint(backend: &Backend) -> Endpoint {
    (backend.address, backend.port)
}

#[cfg(test)]
mod tests {
    use lb_common::{
        backend::BackendId,
        counters::ServiceNumber,
        net::Protocol,
        service::{Reject, Service},
    };

    use super::*;
    use crate::datapath::ServiceValue;

    #[test]
    fn only_listen_addresses_and_backends_have_bits_set() {
        let mut sources = Sources::default();
        for (listen, is_set) in
            [("192.0.2.10:80", true), ("[2001:db8::10]:443", true), ("192.0.2.10:0", false)]
        {
            assert_eq!(sources.apply(&Op::PutService(listen_at(listen), SERVICE)).set.is_some(), is_set);
        }
        assert!(sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080"))).set.is_some());

        assert_eq!(bits(&sources, "192.0.2.10:80"), Filter::SERVICE);
        assert_eq!(bits(&sources, "[2001:db8::10]:443"), Filter::SERVICE);
        assert_eq!(bits(&sources, "10.0.0.11:8080"), Filter::BACKEND);
        assert_eq!(sources.bits().count(), 3);
    }

    #[test]
    fn removed_endpoints_have_no_bits_set() {
        let mut sources = Sources::default();
        sources.apply(&Op::PutService(listen_at("192.0.2.10:80"), SERVICE));
        sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080")));

        let moved = sources.apply(&Op::PutBackend(backend(1 + MAX_PLACES, "10.0.0.12:8080")));
        assert!(moved.set.is_some() && moved.clear.is_some());
        assert_eq!(bits(&sources, "10.0.0.11:8080"), 0);
        assert!(sources.apply(&Op::DeleteBackend(1)).clear.is_some());
        assert!(sources.apply(&Op::DeleteService(listen_at("192.0.2.10:80"))).clear.is_some());
        assert_eq!(sources.bits().count(), 0);
    }

    #[test]
    fn an_operation_without_endpoints_changes_no_bits() {
        let mut sources = Sources::default();
        sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080")));

        let accepting = Backend { accepts: 1, ..backend(1, "10.0.0.11:8080") };
        assert_eq!(sources.apply(&Op::PutBackend(accepting)), Change::default());
        assert_eq!(sources.apply(&Op::SetHopGeneration(7)), Change::default());
    }

    #[test]
    fn a_shared_bit_is_cleared_with_its_last_endpoint() {
        let mut sources = Sources::default();
        sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080")));

        assert_eq!(sources.apply(&Op::PutBackend(backend(2, "10.0.0.11:8080"))), Change::default());
        assert_eq!(sources.apply(&Op::DeleteBackend(1)), Change::default());
        assert!(sources.apply(&Op::DeleteBackend(2)).clear.is_some());
    }

    const SERVICE: ServiceValue =
        ServiceValue { pool: Service::NO_POOL, counters: ServiceNumber(0), reject: Reject::Reset };

    fn parts(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        (address.ip().into(), Be16::new(address.port()))
    }

    fn bits(sources: &Sources, text: &str) -> u8 {
        let (address, port) = parts(text);
        let place = Filter::place(Filter::fold(address), port);
        sources.bits().filter(|(at, _)| *at == place).map(|(_, bit)| bit).sum()
    }

    fn listen_at(text: &str) -> Listen {
        let (address, port) = parts(text);
        Listen { address: address.to_ip(), port, protocol: Protocol::Tcp }
    }

    fn backend(id: u32, text: &str) -> Backend {
        let (address, port) = parts(text);
        Backend { id: BackendId(id), address, port, ..Backend::default() }
    }
}
