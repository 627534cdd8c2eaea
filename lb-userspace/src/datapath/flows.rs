//! Walks and sweeps of the flow tables, while packets are forwarded.
//!
//! Records are read and freed by the program's own code ([`lb_ebpf::table`]). A walk proceeds in chunks, so that
//! nothing waits for a whole table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Range,
    sync::Arc,
};

use lb_common::{
    backend::{BackendId, Load},
    cell::Word,
    clock::{Age, Ticks},
    flow::{Bucket, BucketIndex, Control, FlowId, LineIndex, Owner, RecordIndex, ReplyLine, State, WAYS},
    net::{Be16, Protocol, V4, V6},
    settings::Settings,
};
use lb_ebpf::{
    family::{Family, RecordOf},
    storage::FlowTable,
    table::half_open::HalfOpen,
    table::{
        expire,
        record::{self, Found},
        reply_index,
    },
};

use super::{Flow, backends::Backends, mapping::Mapping, sharing::Reporter};

/// Buckets in a chunk: 2 to 4 MiB of records, which take a few milliseconds.
const CHUNK: u32 = 4096;

/// Both families' tables.
pub struct Flows {
    pub v4: Table<V4>,
    pub v6: Table<V6>,
}

/// One family's table.
pub struct Table<F: Family> {
    pub buckets: Mapping<Bucket<RecordOf<F>>>,
    pub lines: Mapping<ReplyLine>,
    /// A single word.
    pub half_open: Mapping<Word>,
    /// Those of both families.
    pub backends: Arc<Backends>,
    /// Where the ends of flows are reported, if they are shared with other nodes.
    pub reporter: Option<Reporter>,
}

impl Flows {
    /// Visits the flows of the chunk at `from` that have not expired, including those of removed backends,
    /// which the caller must sweep. Returns where the next chunk begins.
    pub fn walk(&self, from: u32, now: Ticks, visit: &mut dyn FnMut(&Flow)) -> Option<u32> {
        let (chunk, next) = self.chunk(from);
        match chunk {
            Chunk::V4(buckets) => self.v4.walk(buckets, now, visit),
            Chunk::V6(buckets) => self.v6.walk(buckets, now, visit),
        }
        next
    }

    /// Ends the flows of retired backends in one chunk, and those that have expired. Returns where the next one begins.
    pub fn sweep(&self, from: u32, retired: &BTreeSet<BackendId>, now: Ticks) -> Option<u32> {
        let (chunk, next) = self.chunk(from);
        match chunk {
            Chunk::V4(buckets) => self.v4.sweep(buckets, retired, now),
            Chunk::V6(buckets) => self.v6.sweep(buckets, retired, now),
        }
        next
    }

    /// Corrects the loads of backends. They are wrong if a daemon was killed while it ended a flow, or if `BACKENDS` was
    /// replaced and the flows were kept.
    ///
    /// Flows begin and end meanwhile. So a load is corrected if it is off by more than it has changed: exactly if the backend
    /// is idle.
    pub fn correct_loads(&self) {
        let backends = &self.v4.backends;
        let loads = || backends.iter().filter_map(|(_, it)| Some((it.id, backends.load(it.id)?)));
        let before: BTreeMap<_, _> = loads().map(|(id, load)| (id, load.flows.load())).collect();
        let mut counted = BTreeMap::new();
        self.v4.count(&mut counted);
        self.v6.count(&mut counted);
        for (id, load) in loads() {
            let Some(before) = before.get(&id) else { continue };
            let counted = counted.get(&id).copied().unwrap_or_default();
            let off = counted.wrapping_sub(*before).cast_signed();
            let change = load.flows.load().wrapping_sub(*before).cast_signed();
            if off.unsigned_abs() > change.unsigned_abs() {
                load.flows.fetch_add(off.cast_unsigned());
            }
        }
    }

    /// Frees the records that were being written when a daemon was killed. CPUs also reserve records, but none does so for longer
    /// than a grace period, which `wait` waits for.
    pub fn free_abandoned(
        &self,
        settings: &Settings,
        wait: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (v4, v6) = (self.v4.reserved(), self.v6.reserved());
        if v4.is_empty() && v6.is_empty() {
            return Ok(());
        }
        wait()?;
        self.v4.free(settings, &v4);
        self.v6.free(settings, &v6);
        Ok(())
    }

    /// Ends those flows of one chunk for which `select` returns true. Returns how many it ended, and where the next chunk
    /// begins.
    pub fn end(&self, from: u32, now: Ticks, select: &mut dyn FnMut(&Flow) -> bool) -> (u64, Option<u32>) {
        let (chunk, next) = self.chunk(from);
        let ended = match chunk {
            Chunk::V4(buckets) => self.v4.end(buckets, now, select),
            Chunk::V6(buckets) => self.v6.end(buckets, now, select),
        };
        (ended, next)
    }

    /// Chunks are numbered through IPv4's buckets and then IPv6's. None covers both.
    fn chunk(&self, from: u32) -> (Chunk, Option<u32>) {
        let v4 = self.v4.buckets.len() as u32;
        let all = v4 + self.v6.buckets.len() as u32;
        let begin = from.min(all);
        let end = begin.saturating_add(CHUNK).min(if begin < v4 { v4 } else { all });
        let chunk = if begin < v4 { Chunk::V4(begin..end) } else { Chunk::V6(begin - v4..end - v4) };
        (chunk, (end < all).then_some(end))
    }
}

/// Buckets of one family.
enum Chunk {
    V4(Range<u32>),
    V6(Range<u32>),
}

impl<F: Family> Table<F> {
    fn walk(&self, buckets: Range<u32>, now: Ticks, visit: &mut dyn FnMut(&Flow)) {
        self.flows(buckets, now).for_each(|(_, flow)| visit(&flow));
    }

    fn end(&self, buckets: Range<u32>, now: Ticks, select: &mut dyn FnMut(&Flow) -> bool) -> u64 {
        let selected = self.flows(buckets, now).filter(|(_, flow)| select(flow));
        let ended = selected.filter(|(found, _)| reply_index::end(self, found.index, found.control));
        // An operator has removed them. Flows of a backend that is removed, down or in maint may go on through other nodes.
        ended.map(|(found, _)| self.report(found.index, found.control.generation())).count() as u64
    }

    /// The flows that have not expired.
    fn flows(&self, buckets: Range<u32>, now: Ticks) -> impl Iterator<Item = (Found<'_, F>, Flow)> {
        self.live(buckets).filter_map(move |found| {
            let (owner, request, reply, last_seen) = found.read(|it| {
                (
                    it.owner.get(),
                    record::request_of::<F>(it),
                    record::reply_of::<F>(it),
                    Ticks(it.last_seen.load()),
                )
            })?;
            let protocol = Protocol::from_number(owner.protocol())?;
            let flow = Flow {
                protocol,
                client: endpoint::<F>(request.source, request.ports.source()),
                listen: endpoint::<F>(request.destination, request.ports.destination()),
                backend: endpoint::<F>(reply.source, reply.ports.source()),
                source: endpoint::<F>(reply.destination, reply.ports.destination()),
                backend_id: owner.backend(),
                state: found.control.state(),
                idle: Age::new(now, last_seen).elapsed().as_duration(),
            };
            (!is_expired(&found, owner, last_seen, now)).then_some((found, flow))
        })
    }

    fn sweep(&self, buckets: Range<u32>, retired: &BTreeSet<BackendId>, now: Ticks) {
        for bucket in buckets {
            for found in self.live(bucket..bucket + 1) {
                if found.read(|it| it.owner.get()).is_some_and(|owner| retired.contains(&owner.backend())) {
                    reply_index::end(self, found.index, found.control);
                }
            }
            expire::in_bucket(self, BucketIndex(bucket), now);
        }
    }

    /// The records that are being written.
    fn reserved(&self) -> Vec<(RecordIndex, Control)> {
        let records = (0..self.buckets.len() as u32 * WAYS as u32).map(RecordIndex);
        let found = records.filter_map(|index| record::by_index::<F>(self, index).ok());
        let busy = found.filter(|found| found.control.state() == State::BUSY);
        busy.map(|found| (found.index, found.control)).collect()
    }

    /// Frees records whose control words are still these.
    fn free(&self, settings: &Settings, records: &[(RecordIndex, Control)]) {
        records.iter().for_each(|(index, control)| reply_index::free(self, settings, *index, *control));
    }

    /// Adds the flows that count for the loads of backends.
    fn count(&self, counted: &mut BTreeMap<BackendId, u64>) {
        for found in self.live(0..self.buckets.len() as u32) {
            if found.control.state().is_counted()
                && let Some(owner) = found.read(|it| it.owner.get())
            {
                *counted.entry(owner.backend()).or_default() += 1;
            }
        }
    }

    /// The records that belong to a flow.
    fn live(&self, buckets: Range<u32>) -> impl Iterator<Item = Found<'_, F>> {
        let records = buckets.start * WAYS as u32..buckets.end * WAYS as u32;
        let found = records.filter_map(|index| record::by_index(self, RecordIndex(index)).ok());
        found.filter(|found| found.control.state().is_live())
    }
}

impl<F: Family> FlowTable<F> for Table<F> {
    fn bucket(&self, index: BucketIndex) -> Option<&Bucket<RecordOf<F>>> {
        self.buckets.get(index.0 as usize)
    }

    fn line(&self, index: LineIndex) -> Option<&ReplyLine> {
        self.lines.get(index.0 as usize)
    }

    fn half_open(&self) -> Option<HalfOpen<'_>> {
        Some(HalfOpen { shared: self.half_open.first()?, own: None })
    }

    fn load(&self, id: BackendId) -> Option<&Load> {
        self.backends.load(id)
    }

    fn report(&self, record: RecordIndex, generation: u32) {
        if let Some(reporter) = &self.reporter {
            reporter.report(FlowId::new(F::IS_V6, record, generation));
        }
    }
}

fn is_expired<F: Family>(found: &Found<'_, F>, owner: Owner, last_seen: Ticks, now: Ticks) -> bool {
    Age::new(now, last_seen).is_over(found.control.state().timeout(owner.protocol()))
}

/// An address and port of a record.
pub fn endpoint<F: Family>(address: F::Address, port: Be16) -> SocketAddr {
    SocketAddr::new(F::to_key(address).to_ip(), port.get())
}

#[cfg(test)]
pub mod fixture;
#[cfg(test)]
mod tests;
