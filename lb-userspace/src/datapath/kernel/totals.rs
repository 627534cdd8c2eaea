//! Counters, summed over CPUs.

use aya::{
    Pod,
    maps::{MapData, PerCpuArray},
};
use lb_common::{
    counters::{ActionCounters, ServiceCounters},
    reason::Reason,
};

use super::maps::Maps;
use crate::datapath::{Sum, Totals};

impl Maps {
    /// The counters of reasons and interfaces.
    pub fn totals(&self) -> anyhow::Result<Totals> {
        let mut totals = Totals::default();
        for reason in Reason::ALL {
            totals.reasons.insert(*reason, sum(&self.reasons, *reason as u32)?);
        }
        for index in self.interfaces()?.into_keys() {
            totals.actions.insert(index, sum(&self.actions, index.0)?);
        }
        Ok(totals)
    }
}

pub fn sum<V: Pod + Default + Sum>(counters: &PerCpuArray<MapData, V>, number: u32) -> anyhow::Result<V> {
    let mut total = V::default();
    for counted in counters.get(&number, 0)?.iter() {
        total.add(counted);
    }
    Ok(total)
}

impl Sum for u64 {
    fn add(&mut self, counted: &Self) {
        *self = self.wrapping_add(*counted);
    }
}

impl Sum for ServiceCounters {
    fn add(&mut self, counted: &Self) {
        self.refused.add(&counted.refused);
        self.retried_flows = self.retried_flows.wrapping_add(counted.retried_flows);
    }
}

impl Sum for ActionCounters {
    fn add(&mut self, counted: &Self) {
        self.passed.add(&counted.passed);
        self.dropped.add(&counted.dropped);
        self.transmitted.add(&counted.transmitted);
        self.redirected.add(&counted.redirected);
        self.rejected.add(&counted.rejected);
    }
}
