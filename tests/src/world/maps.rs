//! A [`World`] as the values of the program's maps: what a controller would have written.

use lb_common::{
    LAYOUT,
    backend::Backend,
    hop::{Hop, Interface},
    limits::{MAX_SLOTS, MAX_SOURCES},
    net::{Address, Be16, Mac},
    service::{Filter, Service, ServiceKey, SlotTable},
    settings::Settings,
};

use super::{World, network};

/// Keys of the flow hash. Fixed, so that both engines and every run choose the same ports.
pub const KEYS: [u64; 6] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6c,
];

/// The contents of all maps that the program does not write. Pools and tables have the same numbers.
#[derive(Clone, Debug)]
pub struct Maps {
    /// With a clock that stands where the world's does.
    pub settings: Settings,
    /// Marks what services listen on and where backends are.
    pub filter: Filter,
    /// Those with port 0 are markers: the address is ours, and no more is said of it.
    pub services: Vec<(ServiceKey, Service)>,
    /// By service.
    pub tables: Vec<SlotTable>,
    /// In the order of their counters, which is the world's; the key is the id.
    pub backends: Vec<Backend>,
    /// With their indices, the one without xlb among them.
    pub interfaces: Vec<(u32, Interface)>,
}

impl World {
    /// What is in the maps.
    pub fn maps(&self) -> Maps {
        Maps {
            settings: Settings {
                layout: LAYOUT,
                hop_generation: self.hop_generation,
                keys: KEYS,
                shape4: self.shape,
                shape6: self.shape,
                ports: self.ports,
                next_backend_id: self.next_id,
                clock: self.clock,
            },
            filter: self.filter(),
            services: self.service_keys(),
            tables: self.services.iter().map(slot_table).collect(),
            backends: self.backends(),
            interfaces: network::INTERFACES
                .iter()
                .map(|(_, index)| (*index, self.interface(*index)))
                .collect(),
        }
    }

    fn filter(&self) -> Filter {
        let mut filter = Filter::NOTHING;
        let mut set = |endpoint: &std::net::SocketAddr, bit| {
            filter.byte[Filter::index(Filter::fold(endpoint.ip().into()), Be16::new(endpoint.port()))] |= bit;
        };
        for service in &self.services {
            service.listen.iter().for_each(|listen| set(listen, Filter::SERVICE));
            service.backends.iter().for_each(|backend| set(&backend.address, Filter::BACKEND));
        }
        filter
    }

    fn service_keys(&self) -> Vec<(ServiceKey, Service)> {
        let mut keys = Vec::new();
        for (number, service) in (0..).zip(&self.services) {
            let protocol = service.protocol.number();
            let key =
                |address: std::net::IpAddr, port| ServiceKey::new(address.into(), Be16::new(port), protocol);
            let marker = Service { pool: Service::NO_POOL, counters: number };
            for listen in &service.listen {
                let found = Service { pool: number, counters: number };
                keys.extend([(key(listen.ip(), listen.port()), found), (key(listen.ip(), 0), marker)]);
            }
            keys.extend(service.sources.iter().map(|source| (key(*source, 0), marker)));
        }
        keys
    }

    /// Counters are numbered by service and by backend as they are listed, which no row changes.
    fn backends(&self) -> Vec<Backend> {
        let mut backends = Vec::new();
        for (service_counters, service) in (0..).zip(&self.services) {
            for it in &service.backends {
                let hop = Hop {
                    destination: Mac::new(it.mac),
                    source: Mac::new(self.own_mac(it.interface)),
                    interface: it.interface,
                    mtu: self.mtu,
                };
                // What is not resolved is all zeros.
                let hop = if it.interface == 0 { Hop::default() } else { hop };
                backends.push(Backend {
                    id: it.id,
                    counters: backends.len() as u32,
                    service_counters,
                    accepts: it.accepts.into(),
                    address: it.address.ip().into(),
                    port: Be16::new(it.address.port()),
                    zero: [0; 3],
                    hop,
                    rest: 0,
                });
            }
        }
        backends
    }
}

fn slot_table(service: &super::Service) -> SlotTable {
    let mut table = SlotTable { mode: service.mode as u32, ..SlotTable::EMPTY };
    let sources: Vec<Address> = service.sources.iter().map(|source| Address::from(*source)).collect();
    for (place, source) in table.source.iter_mut().zip(sources.iter().cycle().take(MAX_SOURCES)) {
        *place = *source;
    }
    let accepting = service.backends.iter().filter(|backend| backend.accepts);
    for (slot, backend) in table.backend.iter_mut().zip(accepting.take(MAX_SLOTS)) {
        *slot = backend.id;
        table.slots += 1;
    }
    table
}
