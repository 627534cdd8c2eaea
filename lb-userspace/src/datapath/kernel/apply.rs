//! One operation, as writes to maps.

use std::{cell::LazyCell, collections::BTreeSet};

use anyhow::{Context, ensure};
use aya::maps::{MapError, PerCpuArray, PerCpuValues};
use lb_common::{
    backend::BackendId,
    counters::{BackendCounters, BackendNumber, ServiceCounters, ServiceNumber},
    hop::{Interface, InterfaceIndex},
    limits::MAX_INTERFACE_INDEX,
    pool::Pool,
    service::{Service, ServiceKey},
};

use super::{maps::Maps, totals::sum};
use crate::datapath::{
    Listen, Op, ServiceValue, names,
    past::{Change, Counted},
};

impl Maps {
    pub fn apply(&mut self, op: &Op) -> anyhow::Result<()> {
        match op {
            Op::PutInterface(index, interface) => self.put_interface(*index, *interface),
            Op::PutBackendName(number, name) => self.put_backend_name(*number, &name.to_string()),
            Op::PutServiceName(number, name) => self.put_service_name(*number, name),
            Op::PutBackend(backend) => {
                ensure!(backend.id != BackendId::NONE, "backend id 0 is reserved");
                self.backends.put(backend);
                Ok(())
            }
            Op::PutSlots(offset, ids) => self.schedules.put_slots(*offset, ids),
            Op::PutSources(number, sources) => self.schedules.put_sources(*number, sources),
            Op::PutMembers(number, ids) => self.schedules.put_members(*number, ids),
            Op::PutPool(number, pool) => self.schedules.put_pool(*number, *pool),
            Op::PutService(listen, value) => {
                let ServiceValue { pool, counters, reject, computed } = *value;
                let computed = Service::computed_from(computed);
                let service = Service { pool, counters, reject: reject as u32, computed };
                Ok(self.services.insert(service_key(listen), service, 0)?)
            }
            Op::PutOrigin(backend, listen) => {
                Ok(self.origins.insert(service_key(backend), service_key(listen), 0)?)
            }
            Op::SetNextBackendId(id) => {
                let mut settings = self.settings()?;
                settings.next_backend_id = *id;
                self.set_settings(&settings)
            }
            Op::SetHopGeneration(generation) => {
                let mut settings = self.settings()?;
                settings.hop_generation = *generation;
                self.set_settings(&settings)
            }
            Op::SetHashKey(key) => {
                let mut settings = self.settings()?;
                settings.hash_keys = *key.words();
                self.set_settings(&settings)
            }
            Op::SetQuiet(quiet) => {
                let mut settings = self.settings()?;
                settings.quiet = *quiet as u32;
                self.set_settings(&settings)
            }
            Op::DeleteOrigin(backend) => gone(self.origins.remove(&service_key(backend))),
            Op::DeleteService(listen) => gone(self.services.remove(&service_key(listen))),
            Op::DeletePool(number) => self.schedules.put_pool(*number, Pool::NONE),
            Op::DeleteMembers(number) => self.schedules.put_members(*number, &[]),
            Op::DeleteSlots(slots) => self.schedules.delete_slots(*slots),
            Op::DeleteSources(number) => self.schedules.put_sources(*number, &[]),
            Op::DeleteBackend(place) => {
                self.backends.delete(*place);
                Ok(())
            }
            Op::DeleteServiceName(number) => {
                self.retire_service_counters(*number)?;
                gone(self.service_names.remove(number))
            }
            Op::DeleteBackendName(number) => {
                self.retire_backend_counters(*number)?;
                gone(self.backend_names.remove(number))
            }
            Op::DeleteInterface(index) => self.delete_interface(*index),
        }
    }

    fn put_interface(
        &mut self,
        InterfaceIndex(index): InterfaceIndex,
        interface: Interface,
    ) -> anyhow::Result<()> {
        below(index, MAX_INTERFACE_INDEX)?;
        self.devices.set(index, index, None, 0).context("cannot write DEVICES")?;
        self.interfaces.set(index, interface, 0).context("cannot write INTERFACES")
    }

    fn delete_interface(&mut self, InterfaceIndex(index): InterfaceIndex) -> anyhow::Result<()> {
        below(index, MAX_INTERFACE_INDEX)?;
        self.interfaces.set(index, Interface::default(), 0).context("cannot write INTERFACES")?;
        // Interface 0 means none: the entry is deleted (kernel/bpf/devmap.c, __dev_map_update_elem).
        self.devices.set(index, 0, None, 0).context("cannot write DEVICES")
    }

    /// A number that gets a name starts to count at zero.
    fn put_backend_name(&mut self, number: BackendNumber, name: &str) -> anyhow::Result<()> {
        below(number.0, self.backend_counters.len())?;
        let record = names::write(name)?;
        if self.backend_names.get(&number, 0).ok() != Some(record) {
            self.retire_backend_counters(number)?;
            zero(&mut self.backend_counters, number.0, BackendCounters::default())?;
        }
        Ok(self.backend_names.insert(number, record, 0)?)
    }

    fn put_service_name(&mut self, number: ServiceNumber, name: &str) -> anyhow::Result<()> {
        below(number.0, self.service_counters.len())?;
        let record = names::write(name)?;
        if self.service_names.get(&number, 0).ok() != Some(record) {
            self.retire_service_counters(number)?;
            zero(&mut self.service_counters, number.0, ServiceCounters::default())?;
        }
        Ok(self.service_names.insert(number, record, 0)?)
    }

    /// The number is about to lose its name. Its counts are kept under that name.
    fn retire_backend_counters(&mut self, number: BackendNumber) -> anyhow::Result<()> {
        let Ok(name) = self.backend_names.get(&number, 0) else { return Ok(()) };
        let backend = sum(&self.backend_counters, number.0)?;
        self.keep(&names::read(&name)?, Counted { backend, ..Counted::default() })?;
        zero(&mut self.backend_counters, number.0, BackendCounters::default())
    }

    fn retire_service_counters(&mut self, number: ServiceNumber) -> anyhow::Result<()> {
        let Ok(name) = self.service_names.get(&number, 0) else { return Ok(()) };
        let counted = sum(&self.service_counters, number.0)?;
        self.keep(&names::read(&name)?, counted.into())?;
        zero(&mut self.service_counters, number.0, ServiceCounters::default())
    }

    /// The counters are reset right after this write. If the daemon is killed after both writes, the next one finds
    /// nothing to add. If it is killed between them, the next one adds the same counts again, and the name's totals
    /// stay too high. In the other order the counts would be lost, and totals must not decrease. No system call changes
    /// both maps, and the program keeps counting in between, so a marker could not show whether the counters had been
    /// reset.
    fn keep(&mut self, name: &str, counted: Counted) -> anyhow::Result<()> {
        let (backends, services) = (&self.backend_names, &self.service_names);
        let in_use = LazyCell::new(|| -> BTreeSet<String> {
            let backends = backends.iter().filter_map(Result::ok).map(|(_, record)| record);
            let services = services.iter().filter_map(Result::ok).map(|(_, record)| record);
            backends.chain(services).filter_map(|record| names::read(&record).ok()).collect()
        });
        let changes = self.past.keep(name, counted, |name| in_use.contains(name));
        let written = changes.into_iter().try_for_each(|change| self.write_past(change));
        if written.is_err() {
            self.read_past()?; // Or the next attempt would add the counts again.
        }
        written
    }

    fn write_past(&mut self, change: Change) -> anyhow::Result<()> {
        match change {
            Change::Put(name, counted) => {
                self.past_map.insert(names::write(&name)?, counted, 0).context("cannot write PAST")
            }
            Change::Delete(name) => gone(self.past_map.remove(&names::write(&name)?)),
        }
    }
}

fn below(number: u32, limit: u32) -> anyhow::Result<()> {
    ensure!(number < limit, "{number} is not below {limit}");
    Ok(())
}

/// Deleting what is already gone is not an error.
fn gone(removed: Result<(), MapError>) -> anyhow::Result<()> {
    match removed {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn zero<V: aya::Pod>(
    counters: &mut PerCpuArray<aya::maps::MapData, V>,
    number: u32,
    nothing: V,
) -> anyhow::Result<()> {
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow::Error::new(error).context(path))?;
    counters.set(number, PerCpuValues::try_from(vec![nothing; cpus])?, 0).context("cannot reset counters")
}

fn service_key(listen: &Listen) -> ServiceKey {
    ServiceKey::new(listen.address.into(), listen.port, listen.protocol.number())
}
