//! A [`World`] as the values of the program's maps, as a controller would write them.

use std::net::SocketAddr;

use lb_common::{
    backend::Backend,
    cell::HalfWord,
    counters::{BackendNumber, ServiceNumber},
    hop::{Hop, Interface, InterfaceIndex},
    net::{Address, Be16, Mac},
    pool::{Members, Pool, PoolNumber, SlotIndex, SlotLine, SlotRange, SourceSet, SourceSetNumber},
    service::{Filter, Service, ServiceKey},
    settings::Settings,
};

use super::{World, network};
use crate::engine::MAX_NUMBERS;

/// Keys of the flow hash. Fixed, so that both engines and every run choose the same ports.
pub const KEYS: [u64; 6] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6c,
];

/// Keys of the pickers that hash.
pub const HASH_KEYS: [u64; 6] = [
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
    0x9216_d5d9_8979_fb1b,
    0xd131_0ba6_98df_b5ac,
    0x2ffd_72db_d01a_dfb7,
    0xb8e1_afed_6a26_7e96,
];

/// Lines of slots for each service.
pub const LINES: u32 = 2;

/// The contents of all maps that the program does not write.
#[derive(Debug)]
pub struct Maps {
    /// The settings, with the world's clock.
    pub settings: Settings,
    /// Marks what services listen on and where backends are.
    pub filter: Box<[u8; Filter::SIZE]>,
    /// The keys of services. Those with port 0 only mark an address as ours.
    pub services: Vec<(ServiceKey, Service)>,
    /// The keys of backends whose flows can be computed, and those of their services.
    pub origins: Vec<(ServiceKey, ServiceKey)>,
    /// The pool of each service, then the computed pools in the same order.
    pub pools: Vec<Pool>,
    /// The slots of the pools, those of each in lines of its own: the number of the line, and its ids.
    pub slots: Vec<(u32, [u32; SlotLine::SLOTS])>,
    /// The members of each pool.
    pub members: Vec<Members>,
    /// The sources of the pools, by number of the set.
    pub sources: Vec<(SourceSetNumber, SourceSet)>,
    /// The backends in the world's order, which is that of their counters. The key is the id.
    pub backends: Vec<Backend>,
    /// The interfaces with their indices, including the one without xlb.
    pub interfaces: Vec<(u32, Interface)>,
}

impl World {
    /// The contents of the maps. Entries in use in an earlier `epoch` are not overwritten: a CPU may still be reading them.
    pub fn maps(&self, epoch: u32) -> Maps {
        let first = epoch * MAX_NUMBERS;
        let services = || (first..).zip(&self.services);
        let computed = || (first + self.services.len() as u32..).zip(&self.services);
        Maps {
            settings: Settings {
                slots: 0,
                hop_generation: self.hop_generation,
                keys: KEYS,
                shape4: self.shape,
                shape6: self.shape,
                ports: self.ports,
                next_backend_id: self.next_id,
                services: 0,
                backends: 0,
                clock: self.clock,
                hash_keys: HASH_KEYS,
                quiet: self.quiet as u32,
                zero: 0,
                own_ports: self.ports,
            },
            filter: self.filter(),
            services: self.service_keys(),
            origins: self.origins(),
            pools: services()
                .map(|(place, service)| pool(place, service, &ids(service)))
                .chain(computed().map(|(place, service)| pool(place, service, &all_ids(service))))
                .collect(),
            slots: services()
                .flat_map(|(place, service)| slots(place, &ids(service)))
                .chain(computed().flat_map(|(place, service)| slots(place, &all_ids(service))))
                .collect(),
            members: services().map(|(_, service)| members(service)).collect(),
            sources: services().map(|(place, service)| (set_number(place), sources(service))).collect(),
            backends: self.backends(),
            interfaces: network::INTERFACES
                .iter()
                .map(|(_, index)| (*index, self.interface(*index)))
                .collect(),
        }
    }

    fn filter(&self) -> Box<[u8; Filter::SIZE]> {
        let mut filter = Box::new([0; Filter::SIZE]);
        let mut set = |endpoint: &SocketAddr, bit| {
            filter[Filter::place(Filter::fold(endpoint.ip().into()), Be16::new(endpoint.port()))] |= bit;
        };
        for service in &self.services {
            service.listen.iter().for_each(|listen| set(listen, Filter::SERVICE));
            let bits = if service.computes { Filter::BACKEND | Filter::ORIGIN } else { Filter::BACKEND };
            service.backends.iter().for_each(|backend| set(&backend.address, bits));
        }
        filter
    }

    fn service_keys(&self) -> Vec<(ServiceKey, Service)> {
        let mut keys = Vec::new();
        for (number, service) in (0..).zip(&self.services) {
            let reject = service.reject as u32;
            let counters = ServiceNumber(number);
            let marker = Service { pool: Service::NO_POOL, counters, reject, computed: 0 };
            let pool = service.computes.then_some(PoolNumber(self.services.len() as u32 + number));
            let computed = Service::computed_from(pool);
            let address = |ip| key(service, SocketAddr::new(ip, 0));
            for listen in &service.listen {
                let found = Service { pool: PoolNumber(number), counters, reject, computed };
                keys.extend([(key(service, *listen), found), (address(listen.ip()), marker)]);
            }
            keys.extend(service.sources.iter().map(|source| (address(*source), marker)));
        }
        keys
    }

    fn origins(&self) -> Vec<(ServiceKey, ServiceKey)> {
        let services = self.services.iter().filter(|service| service.computes);
        let of = |service: &super::Service| {
            let listen = key(service, service.listen[0]);
            service.backends.iter().map(|it| (key(service, it.address), listen)).collect::<Vec<_>>()
        };
        services.flat_map(of).collect()
    }

    /// Counters are numbered by service and by backend as they are listed, which no row changes.
    fn backends(&self) -> Vec<Backend> {
        let mut backends = Vec::new();
        for (number, service) in (0..).zip(&self.services) {
            let accepting = service.backends.iter().filter(|it| it.accepts).count() as u16;
            for it in &service.backends {
                let hop = Hop {
                    destination: Mac::new(it.mac),
                    source: Mac::new(self.own_mac(it.interface)),
                    interface: InterfaceIndex(it.interface),
                    mtu: self.mtu,
                };
                // An unresolved hop is all zeros.
                let hop = if it.interface == 0 { Hop::default() } else { hop };
                backends.push(Backend {
                    id: it.id,
                    counters: BackendNumber(backends.len() as u32),
                    service_counters: ServiceNumber(number),
                    accepts: it.accepts.into(),
                    address: it.address.ip().into(),
                    port: Be16::new(it.address.port()),
                    retries: (service.retries && accepting > u16::from(it.accepts)).into(),
                    most_ejected: if service.ejects && it.accepts { accepting / 2 } else { 0 },
                    zero: 0,
                    hop,
                    pool: PoolNumber(number),
                    weight: it.weight,
                    max_flows: it.max_flows,
                    load: [0; 7],
                });
            }
        }
        backends
    }
}

fn key(service: &super::Service, endpoint: SocketAddr) -> ServiceKey {
    ServiceKey::new(endpoint.ip().into(), Be16::new(endpoint.port()), service.protocol.number())
}

fn pool(place: u32, service: &super::Service, ids: &[u32]) -> Pool {
    let length = ids.len() as u32;
    let range = SlotRange { offset: SlotIndex(place * LINES * SlotLine::SLOTS as u32), length };
    Pool::new(range, service.picker, service.mode, set_number(place))
}

fn slots(place: u32, ids: &[u32]) -> Vec<(u32, [u32; SlotLine::SLOTS])> {
    let line = |number: usize| {
        let ids = ids.iter().skip(number * SlotLine::SLOTS);
        let mut line = [0; SlotLine::SLOTS];
        line.iter_mut().zip(ids).for_each(|(slot, id)| *slot = *id);
        line
    };
    (place * LINES..).zip((0..LINES as usize).map(line)).collect()
}

fn members(service: &super::Service) -> Members {
    let accepting = || (0..service.backends.len()).filter(|place| service.backends[*place].accepts).collect();
    let places: Vec<usize> = service.members.clone().unwrap_or_else(accepting);
    let ids: Vec<u32> = places.iter().map(|place| service.backends[*place].id.0).collect();
    let id = std::array::from_fn(|place| HalfWord::new(ids.get(place).copied().unwrap_or_default()));
    Members { count: HalfWord::new(ids.len() as u32), id }
}

/// The ids in the slots of a service: those of backends that accept new flows.
fn ids(service: &super::Service) -> Vec<u32> {
    let one_each = || (0..service.backends.len()).collect();
    let places: Vec<usize> = service.slots.clone().unwrap_or_else(one_each);
    let backends = places.iter().map(|place| &service.backends[*place]);
    backends.filter(|backend| backend.accepts).map(|backend| backend.id.0).collect()
}

/// The ids in the computed slots of a service: those of all backends.
fn all_ids(service: &super::Service) -> Vec<u32> {
    service.backends.iter().map(|backend| backend.id.0).collect()
}

/// 0 is no set.
const fn set_number(place: u32) -> SourceSetNumber {
    SourceSetNumber(1 + place)
}

fn sources(service: &super::Service) -> SourceSet {
    let mut set = SourceSet::default();
    let sources: Vec<Address> = service.sources.iter().map(|source| Address::from(*source)).collect();
    for (place, source) in set.address.iter_mut().zip(sources.iter().cycle()) {
        *place = *source;
    }
    set
}
