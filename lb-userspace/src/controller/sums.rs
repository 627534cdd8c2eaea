//! Counters by name: those of its current number, and those kept from former numbers.

use std::collections::BTreeMap;

use lb_common::counters::{BackendCounters, Tally};

use super::index::Indexed;
use crate::datapath::{Counted, Datapath, Sum};

/// The counters of one service. See the [module](self).
#[derive(Debug, Default)]
pub struct Sums {
    /// By the backend's name, including removed backends.
    backends: BTreeMap<String, BackendCounters>,
    service: Counted,
}

impl Sums {
    pub fn of(datapath: &impl Datapath, have: &Indexed, service: &str) -> anyhow::Result<Self> {
        let mut sums = Self::default();
        for (number, name) in have.backend_names(service) {
            sums.add_backend(&name.backend, &datapath.backend_counters(number)?);
        }
        for number in have.service_numbers(service) {
            sums.service.add(&datapath.service_counters(number)?.into());
        }

        let past = datapath.past();
        if let Some(counted) = past.get(service) {
            sums.service.add(counted);
        }
        let prefix = format!("{service}/");
        for (name, counted) in past.range(prefix.clone()..) {
            let Some(backend) = name.strip_prefix(&prefix) else { break };
            sums.add_backend(backend, &counted.backend);
        }
        Ok(sums)
    }

    pub fn backend(&self, name: &str) -> BackendCounters {
        self.backends.get(name).copied().unwrap_or_default()
    }

    /// The counts of all its backends, including removed ones.
    pub fn of_backends(&self) -> BackendCounters {
        self.service.backend
    }

    /// Packets for the service that were not forwarded.
    pub fn refused(&self) -> Tally {
        self.service.refused
    }

    /// New flows whose clients another backend had refused.
    pub fn retried_flows(&self) -> u64 {
        self.service.retried_flows
    }

    fn add_backend(&mut self, name: &str, counters: &BackendCounters) {
        self.service.backend.add(counters);
        self.backends.entry(name.to_owned()).or_default().add(counters);
    }
}
