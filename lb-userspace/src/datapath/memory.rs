//! A datapath for tests: maps in memory, no forwarding, and failures on request.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use anyhow::bail;
use lb_common::{
    backend::BackendId,
    counters::{BackendCounters, BackendNumber, ServiceCounters, ServiceNumber},
    pool::PoolNumber,
};

use super::{
    Datapath, Flow, Op, Snapshot, Totals,
    past::{Counted, PastCounters},
};

/// Flows in a chunk: few, so that a walk in a test takes many chunks.
const CHUNK: usize = 2;

/// Plain values in place of the kernel's maps.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub maps: Snapshot,
    /// Flows keep their index, as records do.
    pub records: Vec<Option<Flow>>,
    pub counters: Counters,
    /// All operations that were applied.
    pub log: Vec<Op>,
    /// Backends that the program has ejected.
    pub ejected: BTreeSet<BackendId>,
    /// How often a grace period was awaited.
    pub grace_periods: usize,
    /// Waiting for a grace period fails.
    pub refuses_grace_periods: bool,
    /// How often the maps were read back.
    pub observed: usize,
    /// The number of operations that succeed before one fails.
    pub fail_after: Option<usize>,
    /// Operations succeed without effect.
    pub loses_writes: bool,
    /// The next chunk of a sweep fails.
    pub fail_sweep: bool,
    /// Number of chunks visited, and of chunks swept.
    pub visited: usize,
    pub swept: usize,
}

/// What the program counts.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub backends: BTreeMap<BackendNumber, BackendCounters>,
    pub services: BTreeMap<ServiceNumber, ServiceCounters>,
    pub past: BTreeMap<String, Counted>,
}

impl Memory {
    /// The flows in the table.
    pub fn held(&self) -> Vec<Flow> {
        self.records.iter().flatten().cloned().collect()
    }

    /// The backend ids that get new flows, by pool.
    pub fn in_force(&self) -> BTreeMap<PoolNumber, Vec<BackendId>> {
        self.maps.pools.keys().map(|pool| (*pool, self.maps.offered(*pool).to_vec())).collect()
    }
}

impl Datapath for Memory {
    fn observe(&mut self) -> anyhow::Result<Snapshot> {
        self.observed += 1;
        Ok(self.maps.clone())
    }

    fn apply(&mut self, op: &Op) -> anyhow::Result<()> {
        match &mut self.fail_after {
            Some(0) => {
                self.fail_after = None;
                bail!("no space left on the test device");
            }
            Some(steps) => *steps -= 1,
            None => {}
        }
        if self.loses_writes {
            return Ok(());
        }
        self.keep_counts(op);
        let was_safe = self.maps.is_safe();
        self.maps.apply(op);
        self.log.push(op.clone());
        match self.maps.fault() {
            // What someone else broke can be repaired in any order.
            Some(fault) if was_safe => bail!("not safe after {op}: {fault}"),
            Some(_) | None => Ok(()),
        }
    }

    fn grace_period(&mut self) -> anyhow::Result<()> {
        if self.refuses_grace_periods {
            bail!("the test's kernel has no memory");
        }
        self.grace_periods += 1;
        Ok(())
    }

    fn sweep(&mut self, from: u32, retired: &BTreeSet<BackendId>) -> anyhow::Result<Option<u32>> {
        if std::mem::take(&mut self.fail_sweep) {
            bail!("no mapping of the test's tables");
        }
        self.swept += 1;
        let (chunk, next) = self.chunk(from);
        for record in &mut self.records[chunk] {
            record.take_if(|flow| retired.contains(&flow.backend_id));
        }
        Ok(next)
    }

    fn flows(&mut self, from: u32, visit: &mut dyn FnMut(&Flow)) -> anyhow::Result<Option<u32>> {
        self.visited += 1;
        let (chunk, next) = self.chunk(from);
        self.records[chunk].iter().flatten().for_each(visit);
        Ok(next)
    }

    fn end_flows(
        &mut self,
        from: u32,
        select: &mut dyn FnMut(&Flow) -> bool,
    ) -> anyhow::Result<(u64, Option<u32>)> {
        if std::mem::take(&mut self.fail_sweep) {
            bail!("no mapping of the test's tables");
        }
        let (chunk, next) = self.chunk(from);
        let ended = self.records[chunk].iter_mut().filter_map(|record| record.take_if(|flow| select(flow)));
        Ok((ended.count() as u64, next))
    }

    fn backend_counters(&self, number: BackendNumber) -> anyhow::Result<BackendCounters> {
        Ok(self.counters.backends.get(&number).copied().unwrap_or_default())
    }

    fn service_counters(&self, number: ServiceNumber) -> anyhow::Result<ServiceCounters> {
        Ok(self.counters.services.get(&number).copied().unwrap_or_default())
    }

    fn is_ejected(&self, id: BackendId) -> bool {
        self.ejected.contains(&id)
    }

    fn readmit(&mut self, id: BackendId) {
        self.ejected.remove(&id);
    }

    fn past(&self) -> &BTreeMap<String, Counted> {
        &self.counters.past
    }

    fn totals(&self) -> anyhow::Result<Totals> {
        Ok(Totals::default())
    }
}

impl Memory {
    /// The counts of a number that loses its name are kept under that name.
    fn keep_counts(&mut self, op: &Op) {
        let maps = &self.maps;
        let backend = if let Op::PutBackendName(number, name) = op {
            Some(number).filter(|number| maps.backend_names.get(number) != Some(name))
        } else if let Op::DeleteBackendName(number) = op {
            Some(number)
        } else {
            None
        };
        let service = if let Op::PutServiceName(number, name) = op {
            Some(number).filter(|number| maps.service_names.get(number) != Some(name))
        } else if let Op::DeleteServiceName(number) = op {
            Some(number)
        } else {
            None
        };
        let mut past = PastCounters::new(std::mem::take(&mut self.counters.past), 4096);
        if let Some((number, name)) = backend.and_then(|it| self.maps.backend_names.get_key_value(it)) {
            let backend = self.counters.backends.remove(number).unwrap_or_default();
            past.keep(&name.to_string(), Counted { backend, ..Counted::default() }, |_| true);
        }
        if let Some((number, name)) = service.and_then(|it| self.maps.service_names.get_key_value(it)) {
            let counted = self.counters.services.remove(number).unwrap_or_default();
            past.keep(name, counted.into(), |_| true);
        }
        self.counters.past = past.entries().clone();
    }

    fn chunk(&self, from: u32) -> (Range<usize>, Option<u32>) {
        let all = self.records.len();
        let start = (from as usize).min(all);
        let end = (start + CHUNK).min(all);
        (start..end, (end < all).then_some(end as u32))
    }
}
