//! Reads the maps back as plain values.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use aya::maps::MapError;
use lb_common::{
    hop::{Interface, InterfaceIndex},
    limits::MAX_INTERFACE_INDEX,
    net::Protocol,
    quiet::Quiet,
    service::{Reject, ServiceKey},
};

use super::maps::Maps;
use crate::{
    datapath::{Listen, ServiceValue, Snapshot, names},
    hash_key::HashKey,
};

impl Maps {
    pub fn observe(&self) -> anyhow::Result<Snapshot> {
        let settings = self.settings()?;
        let pools = self.schedules.pools();
        Ok(Snapshot {
            backends: self.backends.iter().collect(),
            backend_names: self
                .backend_names
                .iter()
                .map(|entry| {
                    let (number, name) = entry.context("cannot read names")?;
                    Ok((number, names::read_backend(&name)?))
                })
                .collect::<anyhow::Result<_>>()?,
            service_names: self
                .service_names
                .iter()
                .map(|entry| {
                    let (number, name) = entry.context("cannot read names")?;
                    Ok((number, names::read(&name)?))
                })
                .collect::<anyhow::Result<_>>()?,
            slots: self.schedules.slots(&pools),
            members: self.schedules.members(),
            sources: self.schedules.sources(),
            pools,
            services: self.services()?,
            origins: self.origins()?,
            interfaces: self.interfaces()?,
            next_backend_id: settings.next_backend_id,
            hop_generation: settings.hop_generation,
            hash_key: HashKey::new(settings.hash_keys),
            quiet: Quiet::from_number(settings.quiet),
        })
    }

    fn services(&self) -> anyhow::Result<BTreeMap<Listen, ServiceValue>> {
        let mut services = BTreeMap::new();
        for entry in self.services.iter() {
            let (key, value) = entry.context("cannot read SERVICES")?;
            let reject = Reject::from_number(value.reject);
            let computed = value.computed_pool();
            let value = ServiceValue { pool: value.pool, counters: value.counters, reject, computed };
            services.insert(listen(&key)?, value);
        }
        Ok(services)
    }

    fn origins(&self) -> anyhow::Result<BTreeMap<Listen, Listen>> {
        let entries = self.origins.iter().map(|entry| {
            let (backend, service) = entry.context("cannot read ORIGINS")?;
            Ok((listen(&backend)?, listen(&service)?))
        });
        entries.collect()
    }

    pub fn interfaces(&self) -> anyhow::Result<BTreeMap<InterfaceIndex, Interface>> {
        let mut interfaces = BTreeMap::new();
        for index in 0..MAX_INTERFACE_INDEX {
            let interface = self.interfaces.get(&index, 0).context("cannot read INTERFACES")?;
            if interface != Interface::default() && self.has_device(index)? {
                interfaces.insert(InterfaceIndex(index), interface);
            }
        }
        Ok(interfaces)
    }

    fn has_device(&self, index: u32) -> anyhow::Result<bool> {
        match self.devices.get(index, 0) {
            Ok(device) => Ok(device.if_index == index),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(error).context("cannot read DEVICES"),
        }
    }
}

fn listen(key: &ServiceKey) -> anyhow::Result<Listen> {
    let protocol = Protocol::from_number(key.protocol)
        .ok_or_else(|| anyhow!("SERVICES has a key of protocol {}", key.protocol))?;
    Ok(Listen { address: key.address.to_ip(), port: key.port, protocol })
}
