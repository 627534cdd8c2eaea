//! From what is wanted and known to what the maps are to hold. The meaning lives here.
//!
//! Who gets new flows, per service and family: the eligible backends (ready, weight above 0, up, next hop known), in
//! the file's order, one slot each. Backups only when no other is eligible. None: an empty table, reason `no_backend`.
//!
//! A backend keeps its id while its flows may live: drained, weight 0 and down TCP backends stay, and are given
//! nothing. It gets another id when its flows must end: in maint or removed it has none, and so has a UDP backend
//! that is down, because nothing else ends a UDP flow; at another address or under another protocol it is another
//! backend. A change of mode or sources ends nothing: a flow's record is a finished rewrite.
//!
//! What is found in `have` stays where it is, so a restart changes nothing. A service keeps its number, and a backend its
//! id, by [identity](super::identity): another name ends no flow. A backend's counters go by its name: under another name
//! it counts with other counters from then on, and two that swap names swap counters.

mod schedule;
mod vacant;

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{
    backend,
    hop::Interface,
    limits::{
        MAX_BACKEND_ID, MAX_BACKENDS, MAX_POOLS, MAX_SERVICE_KEYS, MAX_SERVICES, MAX_SLOTS, MAX_SOURCES,
        MAX_TABLES,
    },
    net::Be16,
    service::{Mode, Service as ServiceEntry},
};

pub use self::schedule::Family;
use self::{schedule::Schedule, vacant::Vacant};
use super::{
    identity::Former,
    known::Known,
    snapshot::slot,
    state::{Standing, State},
};
use crate::{
    datapath::{Attached, Listen, ServiceValue, Snapshot, Table, UNRESOLVED},
    spec::{Backend, BackendName, Service},
};

/// What is wanted does not fit into the maps. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("there is room for {MAX_SERVICES} services")]
    Services,
    #[error("there is room for {MAX_SERVICE_KEYS} listen addresses and sources, over all services")]
    ServiceKeys,
    #[error(
        "there is room for {MAX_BACKENDS} backends over all services, and one that leaves keeps its place until it \
         has left: change fewer at once"
    )]
    Backends,
    #[error("service `{service}`: there is room for {MAX_SLOTS} backends of a family")]
    Slots { service: String },
    #[error("service `{service}`: there is room for {MAX_SOURCES} sources of a family")]
    Sources { service: String },
    #[error(
        "there is room for {MAX_POOLS} pools, two a service, and one that leaves keeps its place until it has left"
    )]
    Pools,
    #[error(
        "all {MAX_TABLES} slot tables are or were in force within the last second: try again in a second"
    )]
    Tables,
}

/// What the maps are to hold, with the numbers that `have` gives to things already.
pub fn compile(state: &State, have: &Snapshot) -> Result<Snapshot, NoRoom> {
    let mut compiler = Compiler {
        state,
        have,
        known: Known::of(have),
        vacant: Vacant::default(),
        want: Snapshot::default(),
    };
    compiler.begin();
    let services = &state.spec().services;
    for (service, former) in services.iter().zip(Former::in_maps(have).of_each(services)) {
        compiler.place(service, former)?;
    }
    if compiler.want.services.len() > MAX_SERVICE_KEYS as usize {
        return Err(NoRoom::ServiceKeys);
    }
    Ok(compiler.want)
}

struct Compiler<'a> {
    state: &'a State,
    have: &'a Snapshot,
    known: Known<'a>,
    vacant: Vacant,
    want: Snapshot,
}

impl Compiler<'_> {
    fn begin(&mut self) {
        self.want.hop_generation = self.state.hop_generation();
        self.want.next_backend_id = self.have.next_backend_id.max(1);
        self.want.interfaces = self.state.attached().iter().map(|it| (it.index, interface(it))).collect();
        // A packet may still be reading a table that is in force, or was a moment ago.
        let read = self.have.pools.values().copied().chain(self.state.cooling());
        self.want.tables =
            read.filter_map(|number| Some((number, self.have.tables.get(&number)?.clone()))).collect();
    }

    fn place(&mut self, service: &Service, former: Option<u32>) -> Result<(), NoRoom> {
        let number = self.service_number(service, former)?;
        let mut schedules: BTreeMap<Family, Schedule> = BTreeMap::new();
        for backend in &service.backends {
            let name = BackendName::new(&service.name, &backend.name);
            let counters = self.backend_number(&name)?;
            let standing = self.state.standing(service, backend);
            let Some(id) = self.place_backend(service, backend, (number, counters), standing)? else {
                continue;
            };
            if standing == Standing::Eligible {
                schedules.entry(Family::of(backend.address.ip())).or_default().add(id, backend.backup);
            }
        }
        for family in Family::BOTH {
            let schedule = schedules.remove(&family).unwrap_or_default();
            self.schedule(service, number, family, schedule)?;
        }
        self.mark_addresses(service, number);
        Ok(())
    }

    /// Puts the backend in place, if it is to have one, and returns its id.
    fn place_backend(
        &mut self,
        service: &Service,
        backend: &Backend,
        (service_counters, counters): (u32, u32),
        standing: Standing,
    ) -> Result<Option<u32>, NoRoom> {
        if standing == Standing::Absent {
            return Ok(None);
        }
        let other_protocol = self.known.has_other_protocol(service_counters, service.protocol);
        let kept = self.known.backend_at(service_counters, backend.address).filter(|_| !other_protocol);
        let id = match kept {
            Some(entry) => entry.id,
            None => self.fresh_id()?,
        };

        let entry = backend::Backend {
            id,
            counters,
            service_counters,
            accepts: 0, // until a table names it
            address: backend.address.ip().into(),
            port: Be16::new(backend.address.port()),
            zero: [0; 3],
            hop: self.state.hop(self.state.path(service, backend)).unwrap_or(UNRESOLVED),
            rest: 0,
        };
        self.want.backends.insert(slot(id), entry);
        Ok(Some(id))
    }

    /// Puts a schedule in force where the service listens in this family.
    fn schedule(
        &mut self,
        service: &Service,
        counters: u32,
        family: Family,
        schedule: Schedule,
    ) -> Result<(), NoRoom> {
        let listens: Vec<_> = service.listen.iter().filter(|it| Family::of(it.ip()) == family).collect();
        if listens.is_empty() {
            return Ok(());
        }
        let backends = schedule.in_force();
        for id in &backends {
            self.want.backends.entry(slot(*id)).and_modify(|backend| backend.accepts = 1);
        }
        let table = Table { mode: service.mode, sources: sources(service, family), backends };
        if table.backends.len() > MAX_SLOTS {
            return Err(NoRoom::Slots { service: service.name.clone() });
        }
        if table.sources.len() > MAX_SOURCES {
            return Err(NoRoom::Sources { service: service.name.clone() });
        }

        let pool = self.pool(counters, family)?;
        let number = self.table_number(pool, &table)?;
        self.want.tables.insert(number, table);
        self.want.pools.insert(pool, number);
        for listen in listens {
            let key =
                Listen { address: listen.ip(), port: Be16::new(listen.port()), protocol: service.protocol };
            self.want.services.insert(key, ServiceValue { pool, counters });
        }
        Ok(())
    }

    /// Addresses that are ours whatever the port: the first service of the file answers for what is amiss there.
    fn mark_addresses(&mut self, service: &Service, counters: u32) {
        let sources = Family::BOTH.into_iter().flat_map(|family| sources(service, family));
        for address in service.listen.iter().map(|listen| listen.ip()).chain(sources) {
            let marker = Listen { address, port: Be16::new(0), protocol: service.protocol };
            let value = ServiceValue { pool: ServiceEntry::NO_POOL, counters };
            self.want.services.entry(marker).or_insert(value);
        }
    }

    fn service_number(&mut self, service: &Service, former: Option<u32>) -> Result<u32, NoRoom> {
        let number = match former {
            Some(number) => number,
            None => {
                let taken = [&self.have.service_names, &self.want.service_names];
                self.vacant.services.take(MAX_SERVICES, taken).ok_or(NoRoom::Services)?
            }
        };
        self.want.service_names.insert(number, service.name.clone());
        Ok(number)
    }

    fn backend_number(&mut self, name: &BackendName) -> Result<u32, NoRoom> {
        let number = match self.known.backend_number(name) {
            Some(number) => number,
            None => {
                let taken = [&self.have.backend_names, &self.want.backend_names];
                self.vacant.backends.take(MAX_BACKENDS, taken).ok_or(NoRoom::Backends)?
            }
        };
        self.want.backend_names.insert(number, name.clone());
        Ok(number)
    }

    /// The pool that the service has already, else one that nobody has or had.
    fn pool(&mut self, service: u32, family: Family) -> Result<u32, NoRoom> {
        if let Some(pool) = self.known.pool(service, family) {
            return Ok(pool);
        }
        self.vacant.pools.take(MAX_POOLS, [&self.have.pools, &self.want.pools]).ok_or(NoRoom::Pools)
    }

    /// The table in force if it is this very schedule, else one that no packet can be reading.
    fn table_number(&mut self, pool: u32, table: &Table) -> Result<u32, NoRoom> {
        let in_force = self.have.pools.get(&pool).copied();
        if let Some(number) = in_force.filter(|number| self.have.tables.get(number) == Some(table)) {
            return Ok(number);
        }
        let taken = [&self.have.tables, &self.want.tables];
        loop {
            let number = self.vacant.tables.take(MAX_TABLES, taken).ok_or(NoRoom::Tables)?;
            if !self.state.is_cooling(number) {
                return Ok(number);
            }
        }
    }

    /// The next id whose slot nobody has or had.
    fn fresh_id(&mut self) -> Result<u32, NoRoom> {
        // Two rounds over the slots: the wrap leaves out slot 0, because nobody has id 0.
        for _ in 0..2 * MAX_BACKENDS {
            let id = self.want.next_backend_id;
            self.want.next_backend_id = (id + 1) % MAX_BACKEND_ID;
            self.want.next_backend_id = self.want.next_backend_id.max(1);
            let taken = [&self.have.backends, &self.want.backends];
            if !taken.iter().any(|backends| backends.contains_key(&slot(id))) {
                return Ok(id);
            }
        }
        Err(NoRoom::Backends)
    }
}

fn sources(service: &Service, family: Family) -> Vec<IpAddr> {
    match service.mode {
        Mode::FullNat => service.sources.iter().copied().filter(|it| Family::of(*it) == family).collect(),
        Mode::Nat => Vec::new(),
    }
}

fn interface(attached: &Attached) -> Interface {
    Interface { mac: attached.mac, zero: 0, mtu: attached.mtu, attached: 1 }
}

#[cfg(test)]
mod tests;
