//! Counters by name: those of its current number, and those kept from former numbers.

use std::collections::BTreeMap;

use lb_common::counters::{BackendCounters, Tally};

use crate::{
    datapath::{Counted, Snapshot, Sum, Totals},
    spec::BackendName,
};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Sums {
    backends: BTreeMap<BackendName, BackendCounters>,
    services: BTreeMap<String, Counted>,
}

impl Sums {
    pub fn of(totals: &Totals, have: &Snapshot) -> Self {
        let mut sums = Self::default();
        for (number, counters) in &totals.backends {
            if let Some(name) = have.backend_names.get(number) {
                sums.add_backend(name.clone(), counters);
            }
        }
        for (number, counters) in &totals.services {
            if let Some(name) = have.service_names.get(number) {
                sums.services.entry(name.clone()).or_default().refused.add(&counters.refused);
            }
        }
        for (name, counted) in &totals.past {
            match name.parse() {
                Ok(backend) => sums.add_backend(backend, &counted.backend),
                Err(_) => {
                    let service = sums.services.entry(name.clone()).or_default();
                    service.backend.add(&counted.backend);
                    service.refused.add(&counted.refused);
                }
            }
        }
        sums
    }

    pub fn backend(&self, name: &BackendName) -> BackendCounters {
        self.backends.get(name).copied().unwrap_or_default()
    }

    /// The counts of all its backends, including removed ones.
    pub fn of_backends(&self, service: &str) -> BackendCounters {
        self.services.get(service).map(|it| it.backend).unwrap_or_default()
    }

    /// Packets for the service that were not forwarded.
    pub fn refused(&self, service: &str) -> Tally {
        self.services.get(service).map(|it| it.refused).unwrap_or_default()
    }

    fn add_backend(&mut self, name: BackendName, counters: &BackendCounters) {
        self.services.entry(name.service.clone()).or_default().backend.add(counters);
        self.backends.entry(name).or_default().add(counters);
    }
}
