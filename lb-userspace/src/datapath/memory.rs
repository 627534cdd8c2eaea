//! A datapath that forwards nothing: maps in memory, and failures on order. For tests of whoever uses a datapath.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;

use super::{Datapath, Flow, Op, Snapshot, Totals};

/// Flows of one stretch: few, so that tests see walks of many stretches.
const STRETCH: usize = 2;

/// Plain values where the kernel has maps.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub maps: Snapshot,
    pub flows: Vec<Flow>,
    pub totals: Totals,
    /// Every step that was taken.
    pub log: Vec<Op>,
    /// How often the maps were read back.
    pub observed: usize,
    /// So many steps go well, then one fails.
    pub fail_after: Option<usize>,
    /// The next stretch of a sweep fails.
    pub fail_sweep: bool,
}

impl Memory {
    /// The ids that are given new flows, by pool.
    pub fn in_force(&self) -> BTreeMap<u32, Vec<u32>> {
        let backends = |table| self.maps.tables.get(table).map(|table| table.backends.clone());
        self.maps.pools.iter().filter_map(|(pool, table)| Some((*pool, backends(table)?))).collect()
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
                bail!("no space left on the device of the test");
            }
            Some(steps) => *steps -= 1,
            None => {}
        }
        let was_safe = self.maps.is_safe();
        self.maps.apply(op);
        self.log.push(op.clone());
        match self.maps.fault() {
            // What others broke may be repaired in any order.
            Some(fault) if was_safe => bail!("not safe after {op}: {fault}"),
            Some(_) | None => Ok(()),
        }
    }

    fn sweep(&mut self, from: u32, retired: &BTreeSet<u32>) -> anyhow::Result<Option<u32>> {
        if std::mem::take(&mut self.fail_sweep) {
            bail!("no mapping of the test's tables");
        }
        let (start, end) = self.stretch(from);
        let kept =
            |(at, flow): &(usize, Flow)| !(start..end).contains(at) || !retired.contains(&flow.backend_id);
        let before = self.flows.len();
        self.flows = std::mem::take(&mut self.flows)
            .into_iter()
            .enumerate()
            .filter(kept)
            .map(|(_, flow)| flow)
            .collect();
        let freed = before - self.flows.len();
        Ok(self.next(end - freed))
    }

    fn flows(&mut self, from: u32, visit: &mut dyn FnMut(&Flow)) -> anyhow::Result<Option<u32>> {
        let (start, end) = self.stretch(from);
        self.flows.iter().take(end).skip(start).for_each(visit);
        Ok(self.next(end))
    }

    fn totals(&mut self) -> anyhow::Result<Totals> {
        Ok(self.totals.clone())
    }
}

impl Memory {
    fn stretch(&self, from: u32) -> (usize, usize) {
        let start = from as usize;
        (start, (start + STRETCH).min(self.flows.len()))
    }

    fn next(&self, end: usize) -> Option<u32> {
        (end < self.flows.len()).then_some(end as u32)
    }
}
