//! The maps, read back as plain values.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, anyhow};
use aya::maps::MapError;
use lb_common::{
    hop::Interface,
    limits::{MAX_INTERFACE_INDEX, MAX_SLOTS, MAX_SOURCES, MAX_TABLES},
    net::{Address, Protocol},
    service::{Mode, ServiceKey, SlotTable},
};

use super::{NO_TABLE, maps::Maps};
use crate::datapath::{Listen, ServiceValue, Snapshot, Table, names};

impl Maps {
    pub fn observe(&self) -> anyhow::Result<Snapshot> {
        let settings = self.settings()?;
        let named = |entry: Result<(u32, names::Record), MapError>| entry.context("read names");
        Ok(Snapshot {
            backends: self.backends.iter().collect(),
            backend_names: self
                .backend_names
                .iter()
                .map(|entry| {
                    named(entry).and_then(|(number, name)| Ok((number, names::read_backend(&name)?)))
                })
                .collect::<anyhow::Result<_>>()?,
            service_names: self
                .service_names
                .iter()
                .map(|entry| named(entry).and_then(|(number, name)| Ok((number, names::read(&name)?))))
                .collect::<anyhow::Result<_>>()?,
            tables: self.tables()?,
            pools: self.pools(),
            services: self.services()?,
            interfaces: self.interfaces()?,
            next_backend_id: settings.next_backend_id,
            hop_generation: settings.hop_generation,
        })
    }

    fn tables(&self) -> anyhow::Result<BTreeMap<u32, Table>> {
        let mut tables = BTreeMap::new();
        for number in 0..MAX_TABLES {
            let slots = self.tables.get(&number, 0).context("read TABLES")?;
            if slots.source[0] != Address::default() {
                let table = table(&slots).with_context(|| format!("read slot table {number}"))?;
                tables.insert(number, table);
            }
        }
        Ok(tables)
    }

    fn pools(&self) -> BTreeMap<u32, u32> {
        let tables = self.pools.iter().map(|word| word.load() as u32);
        (0..).zip(tables).filter(|(_, table)| *table != NO_TABLE).collect()
    }

    fn services(&self) -> anyhow::Result<BTreeMap<Listen, ServiceValue>> {
        let mut services = BTreeMap::new();
        for entry in self.services.iter() {
            let (key, value) = entry.context("read SERVICES")?;
            services.insert(listen(&key)?, ServiceValue { pool: value.pool, counters: value.counters });
        }
        Ok(services)
    }

    pub fn interfaces(&self) -> anyhow::Result<BTreeMap<u32, Interface>> {
        let mut interfaces = BTreeMap::new();
        for index in 0..MAX_INTERFACE_INDEX {
            let interface = self.interfaces.get(&index, 0).context("read INTERFACES")?;
            if interface != Interface::default() && self.has_device(index)? {
                interfaces.insert(index, interface);
            }
        }
        Ok(interfaces)
    }

    fn has_device(&self, index: u32) -> anyhow::Result<bool> {
        match self.devices.get(index, 0) {
            Ok(device) => Ok(device.if_index == index),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(error).context("read DEVICES"),
        }
    }
}

fn listen(key: &ServiceKey) -> anyhow::Result<Listen> {
    let protocol = Protocol::from_number(key.protocol)
        .ok_or_else(|| anyhow!("SERVICES has a key of protocol {}", key.protocol))?;
    Ok(Listen { address: key.address.to_ip(), port: key.port, protocol })
}

fn table(slots: &SlotTable) -> anyhow::Result<Table> {
    let mode = [Mode::FullNat, Mode::Nat].into_iter().find(|mode| *mode as u32 == slots.mode);
    let used = (slots.slots as usize).min(MAX_SLOTS);
    Ok(Table {
        mode: mode.ok_or_else(|| anyhow!("there is no mode {}", slots.mode))?,
        sources: sources(&slots.source),
        backends: slots.backend[..used].to_vec(),
    })
}

/// What was repeated until the array was full. No source is there twice, so its second coming is the end.
fn sources(array: &[Address; MAX_SOURCES]) -> Vec<IpAddr> {
    if *array == SlotTable::EMPTY.source {
        return Vec::new();
    }
    let again = array.iter().skip(1).position(|address| *address == array[0]);
    let count = again.map_or(MAX_SOURCES, |position| position + 1);
    array[..count].iter().map(|address| address.to_ip()).collect()
}
