//! The kernel's maps, by aya.
//!
//! Arrays have no holes. An absent element has a value that no real element has:
//!
//! | map | absent |
//! |---|---|
//! | `BACKENDS` | id 0 |
//! | `POOLS` | the word 0, which has no picker |
//! | `SLOTS` | id 0 |
//! | `SOURCES` | first source `::` |
//! | `INTERFACES` | all zero, or not in `DEVICES`, from which the kernel removes deleted interfaces |

mod apply;
pub mod carry;
pub mod flow_events;
pub mod grace_period;
pub mod handles;
pub mod load;
pub mod manifest;
mod maps;
pub mod neighbour_requests;
mod observe;
mod raw;
mod schedules;
pub mod slow_paths;
mod totals;
pub mod traces;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use anyhow::Context;
use lb_common::{
    backend::BackendId,
    clock::Ticks,
    counters::{BackendCounters, BackendNumber, ServiceCounters, ServiceNumber},
    settings::Settings,
};
use nix::time::{ClockId, clock_gettime};

use self::{maps::Maps, totals::sum};
use super::{Counted, Datapath, Flow, Op, Snapshot, Totals, filter::Sources, flows::Flows};

/// The XDP program, if xlb was built with it (`cargo xtask build`).
pub fn object() -> Option<&'static [u8]> {
    #[cfg(has_bpf_object)]
    return Some(aya::include_bytes_aligned!(env!("XLB_BPF_OBJECT")));
    #[cfg(not(has_bpf_object))]
    None
}

/// The pinned maps of the running program.
pub struct KernelDatapath {
    maps: Maps,
    sources: Sources,
}

impl KernelDatapath {
    fn new(mut maps: Maps) -> anyhow::Result<Self> {
        maps.read_past()?;
        maps.flows.free_abandoned(&maps.settings()?, grace_period::wait)?;
        maps.backends.count_ejected();
        maps.flows.correct_loads();
        let mut datapath = Self { maps, sources: Sources::default() };
        datapath.observe()?;
        Ok(datapath)
    }

    /// The flow tables.
    pub fn flow_tables(&self) -> Arc<Flows> {
        Arc::clone(&self.maps.flows)
    }

    /// The settings of the program.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        self.maps.settings()
    }
}

impl Datapath for KernelDatapath {
    fn observe(&mut self) -> anyhow::Result<Snapshot> {
        let snapshot = self.maps.observe().context("cannot read the maps back")?;
        // An operation that failed halfway leaves a filter that is right for neither state. No bit is cleared: flows may
        // still need it if the contents of another map were lost, and a bit too many only costs time.
        self.sources.read_back(&snapshot);
        self.sources.bits().for_each(|bit| self.maps.set_filter_bit(bit, true));
        Ok(snapshot)
    }

    fn apply(&mut self, op: &Op) -> anyhow::Result<()> {
        let change = self.sources.apply(op, ticks_now()?);
        if let Some(bit) = change.set {
            self.maps.set_filter_bit(bit, true);
        }
        self.maps.apply(op)?;
        if let Some(bit) = change.clear {
            self.maps.set_filter_bit(bit, false);
        }
        Ok(())
    }

    fn grace_period(&mut self) -> anyhow::Result<()> {
        grace_period::wait()
    }

    fn sweep(&mut self, from: u32, retired: &BTreeSet<BackendId>) -> anyhow::Result<Option<u32>> {
        let now = ticks_now()?;
        self.sources.expire(now).into_iter().for_each(|bit| self.maps.set_filter_bit(bit, false));
        Ok(self.maps.flows.sweep(from, retired, now))
    }

    fn flows(&mut self, from: u32, visit: &mut dyn FnMut(&Flow)) -> anyhow::Result<Option<u32>> {
        Ok(self.maps.flows.walk(from, ticks_now()?, visit))
    }

    fn end_flows(
        &mut self,
        from: u32,
        select: &mut dyn FnMut(&Flow) -> bool,
    ) -> anyhow::Result<(u64, Option<u32>)> {
        Ok(self.maps.flows.end(from, ticks_now()?, select))
    }

    fn backend_counters(&self, number: BackendNumber) -> anyhow::Result<BackendCounters> {
        sum(&self.maps.backend_counters, number.0).context("cannot read BACKEND_COUNTERS")
    }

    fn service_counters(&self, number: ServiceNumber) -> anyhow::Result<ServiceCounters> {
        sum(&self.maps.service_counters, number.0).context("cannot read SERVICE_COUNTERS")
    }

    fn is_ejected(&self, id: BackendId) -> bool {
        self.maps.backends.is_ejected(id)
    }

    fn readmit(&mut self, id: BackendId) {
        self.maps.backends.readmit(id);
    }

    fn past(&self) -> &BTreeMap<String, Counted> {
        self.maps.past.entries()
    }

    fn totals(&self) -> anyhow::Result<Totals> {
        self.maps.totals().context("cannot read the counters")
    }
}

/// The program's clock (`bpf_ktime_get_coarse_ns`).
pub fn ticks_now() -> anyhow::Result<Ticks> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).context("cannot read the monotonic clock")?;
    let nanoseconds = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    Ok(Ticks::from_ns(nanoseconds))
}

impl fmt::Debug for KernelDatapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelDatapath").field("sources", &self.sources).finish_non_exhaustive()
    }
}
