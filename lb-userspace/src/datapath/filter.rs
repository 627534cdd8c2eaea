//! The prefilter, derived from listen addresses and backends.
//!
//! A set bit may be a false positive; there are no false negatives. So an operation sets the bits of what it adds
//! before it is applied, and clears the bits of what it removes afterwards.
//!
//! The bit of a removed backend lingers for as long as its ended flows are answered (`lb_ebpf::path::ended`): a sweep after that
//! time clears it. Bits that linger when the daemon ends stay set.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    backend::Backend,
    clock::{Age, Ticks},
    flow::State,
    limits::MAX_PLACES,
    net::{Address, Be16, Protocol},
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
    origins: BTreeSet<Listen>,
    /// Bits of backends only, and when their last one was removed.
    lingering: BTreeMap<Bit, Ticks>,
}

/// The longest time for which a reply of an ended flow is answered.
const LINGERS: Ticks = State::ESTABLISHED.timeout(Protocol::Tcp as u8);

impl Sources {
    /// Takes over all endpoints in the maps. What lingers stays.
    pub fn read_back(&mut self, maps: &Snapshot) {
        let mut sources = Self { lingering: std::mem::take(&mut self.lingering), ..Self::default() };
        for (listen, service) in &maps.services {
            sources.apply(&Op::PutService(*listen, *service), Ticks::default());
        }
        for (backend, listen) in &maps.origins {
            sources.apply(&Op::PutOrigin(*backend, *listen), Ticks::default());
        }
        for backend in maps.backends.values() {
            sources.apply(&Op::PutBackend(*backend), Ticks::default());
        }
        *self = sources;
    }

    /// Records one operation.
    pub fn apply(&mut self, op: &Op, now: Ticks) -> Change {
        match op {
            Op::PutService(listen, _) if self.listens.insert(*listen) => {
                Change { set: self.add(service(listen)), clear: None }
            }
            Op::DeleteService(listen) if self.listens.remove(listen) => {
                Change { set: None, clear: self.remove(service(listen)) }
            }
            Op::PutOrigin(backend, _) if self.origins.insert(*backend) => {
                Change { set: self.add(Some(origin(backend))), clear: None }
            }
            Op::DeleteOrigin(backend) if self.origins.remove(backend) => {
                Change { set: None, clear: self.remove(Some(origin(backend))) }
            }
            Op::PutBackend(backend) => {
                let endpoint = endpoint(backend);
                let before = self.backends.insert(backend.id.place(MAX_PLACES), endpoint);
                let set = self.add(Some(bit(endpoint, Filter::BACKEND)));
                self.retire(before, now);
                Change { set, clear: None }
            }
            Op::DeleteBackend(place) => {
                let before = self.backends.remove(place);
                self.retire(before, now);
                Change::default()
            }
            Op::PutService(..)
            | Op::DeleteService(_)
            | Op::PutOrigin(..)
            | Op::DeleteOrigin(_)
            | Op::PutInterface(..)
            | Op::PutBackendName(..)
            | Op::PutServiceName(..)
            | Op::PutSlots(..)
            | Op::PutSources(..)
            | Op::PutMembers(..)
            | Op::PutPool(..)
            | Op::SetNextBackendId(_)
            | Op::SetHopGeneration(_)
            | Op::SetHashKey(_)
            | Op::SetQuiet(_)
            | Op::DeletePool(_)
            | Op::DeleteMembers(_)
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

    /// Bits that no endpoint has needed for long enough: they must be cleared.
    pub fn expire(&mut self, now: Ticks) -> Vec<Bit> {
        let expired = self.lingering.extract_if(.., |_, since| Age::new(now, *since).is_over(LINGERS));
        expired.map(|(bit, _)| bit).collect()
    }

    /// A backend has left this endpoint.
    fn retire(&mut self, endpoint: Option<Endpoint>, now: Ticks) {
        if let Some(bit) = self.remove(endpoint.map(|endpoint| bit(endpoint, Filter::BACKEND))) {
            self.lingering.insert(bit, now);
        }
    }

    /// Returns the bit if it was clear before.
    fn add(&mut self, bit: Option<Bit>) -> Option<Bit> {
        self.lingering.remove(&bit?);
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

fn origin(backend: &Listen) -> Bit {
    bit((backend.address.into(), backend.port), Filter::ORIGIN)
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
            assert_eq!(sources.apply(&Op::PutService(listen_at(listen), SERVICE), NOW).set.is_some(), is_set);
        }
        assert!(sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080")), NOW).set.is_some());

        assert_eq!(bits(&sources, "192.0.2.10:80"), Filter::SERVICE);
        assert_eq!(bits(&sources, "[2001:db8::10]:443"), Filter::SERVICE);
        assert_eq!(bits(&sources, "10.0.0.11:8080"), Filter::BACKEND);
        assert_eq!(sources.bits().count(), 3);
    }

    #[test]
    fn removed_endpoints_have_no_bits_set() {
        let mut sources = Sources::default();
        sources.apply(&Op::PutService(listen_at("192.0.2.10:80"), SERVICE), NOW);
        sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080")), NOW);

        let moved = sources.apply(&Op::PutBackend(backend(1 + MAX_PLACES, "10.0.0.12:8080")), NOW);
        assert!(moved.set.is_some());
        assert_eq!(bits(&sources, "10.0.0.11:8080"), 0);
        sources.apply(&Op::DeleteBackend(1), NOW);
        assert!(sources.apply(&Op::DeleteService(listen_at("192.0.2.10:80")), NOW).clear.is_some());
        assert_eq!(sources.bits().count(), 0);
    }

    #[test]
    fn the_bit_of_a_removed_backend_is_cleared_after_the_longest_timeout_unless_it_is_needed_again() {
        let mut sources = Sources::default();
        let put = [backend(1, "10.0.0.11:8080"), backend(2, "10.0.0.12:8080")].map(Op::PutBackend);
        for op in &put {
            sources.apply(op, NOW);
        }
        assert_eq!(sources.apply(&Op::DeleteBackend(1), NOW), Change::default());
        assert_eq!(sources.apply(&Op::DeleteBackend(2), NOW), Change::default());
        let last = Ticks(NOW.0.wrapping_add(Ticks::from_seconds(7440).0));

        sources.apply(&put[1], NOW);
        sources.read_back(&Snapshot::default());

        assert_eq!(sources.expire(last), []);
        let place = Filter::place(Filter::fold(parts("10.0.0.11:8080").0), Be16::new(8080));
        assert_eq!(sources.expire(Ticks(last.0.wrapping_add(1))), [(place, Filter::BACKEND)]);
        assert_eq!(sources.expire(Ticks(last.0.wrapping_add(2))), []);
    }

    #[test]
    fn an_operation_without_endpoints_changes_no_bits() {
        let mut sources = Sources::default();
        sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080")), NOW);

        let accepting = Backend { accepts: 1, ..backend(1, "10.0.0.11:8080") };
        assert_eq!(sources.apply(&Op::PutBackend(accepting), NOW), Change::default());
        assert_eq!(sources.apply(&Op::SetHopGeneration(7), NOW), Change::default());
    }

    #[test]
    fn a_shared_bit_is_cleared_with_its_last_endpoint() {
        let mut sources = Sources::default();
        sources.apply(&Op::PutBackend(backend(1, "10.0.0.11:8080")), NOW);

        assert_eq!(sources.apply(&Op::PutBackend(backend(2, "10.0.0.11:8080")), NOW), Change::default());
        assert_eq!(sources.apply(&Op::DeleteBackend(1), NOW), Change::default());
        sources.apply(&Op::DeleteBackend(2), NOW);
        assert_eq!(sources.bits().count(), 0);
    }

    /// The clock wraps within the longest timeout.
    const NOW: Ticks = Ticks(u32::MAX - 7);
    const SERVICE: ServiceValue = ServiceValue {
        pool: Service::NO_POOL,
        counters: ServiceNumber(0),
        reject: Reject::Reset,
        computed: None,
    };

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
