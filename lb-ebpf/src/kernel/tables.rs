//! The core's storage in BPF maps, and its steps as calls of global functions.

use aya_ebpf::{bindings::xdp_md, helpers};
use lb_common::{
    backend::{Backend, BackendId, Load},
    cell::Word,
    clock::Ticks,
    counters::{BackendNumber, ServiceNumber},
    event::NeighbourWanted,
    flow::{
        Bucket, BucketIndex, Control, FlowId, LineIndex, Record4, Record6, RecordIndex, ReplyLine, State,
    },
    hop::{Interface, InterfaceIndex},
    net::{V4, V6},
    pool::{
        Members, Pool, PoolNumber, PoolSlot, SlotIndex, SlotLine, SlotRange, SourceSet, SourceSetNumber, Turn,
    },
    reason::Reason,
    service::{Filter, Service, ServiceKey},
    settings::Settings,
};

use super::{counters, maps, pack, routes::Routed, subprograms, trace};
use crate::{
    family::Family as _,
    packet::tcp::{Segment, Side},
    picker::{least::Among, offer::Offer},
    steps::Steps,
    storage::{FlowTable, Maps, Route, Storage},
    table::evict::Candidate,
    table::half_open::HalfOpen,
    table::handshake::Retry,
    table::record::States,
    table::reply_index::{Holders, Reserve},
    table::scratch::Scratch,
};

/// All maps, and the packet's context for route lookups (null in functions that make none).
pub struct KernelTables(pub *mut xdp_md);

impl Maps for KernelTables {
    #[inline(always)]
    fn settings(&self) -> &Settings {
        maps::SETTINGS.get()
    }

    #[inline(always)]
    fn now(&self) -> Ticks {
        if maps::CLOCK_IS_SET.load() != 0 {
            return self.settings().clock;
        }
        // SAFETY: a helper without arguments.
        Ticks::from_ns(unsafe { helpers::bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn filter(&self, place: usize) -> u8 {
        maps::FILTER.get().byte[place & (Filter::SIZE - 1)]
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        // SAFETY: the value is copied at once; the controller replaces elements only as a whole.
        unsafe { maps::SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn origin(&self, key: &ServiceKey) -> Option<ServiceKey> {
        // SAFETY: as in `service`.
        unsafe { maps::ORIGINS.get(key) }.copied()
    }

    #[inline(always)]
    fn pool(&self, number: PoolNumber) -> Option<Pool> {
        Some(Pool(maps::POOLS.get(number.0)?.load()))
    }

    #[inline(always)]
    fn slot(&self, index: SlotIndex) -> Option<BackendId> {
        Some(BackendId(maps::SLOTS.get(SlotLine::line(index))?.id[SlotLine::place(index)].load()))
    }

    #[inline(always)]
    fn members(&self, pool: PoolNumber) -> Option<&Members> {
        maps::MEMBERS.get(pool.0)
    }

    #[inline(always)]
    fn sources(&self, number: SourceSetNumber) -> Option<&SourceSet> {
        maps::SOURCES.get(number.0)
    }

    #[inline(always)]
    fn turn(&self, pool: PoolNumber) -> Option<&Turn> {
        maps::TURNS.get(pool.0)
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<&Backend> {
        maps::BACKENDS.get(id.0 & maps::BACKENDS_MASK.load())
    }

    #[inline(always)]
    fn load_of<'a>(&'a self, backend: &'a Backend) -> &'a Load {
        // SAFETY: the words of the map's element, which exists as long as the program is loaded. They have the size and
        // alignment of `Load`, and nothing else refers to them.
        unsafe { &*(&raw const backend.load).cast::<Load>() }
    }

    #[inline(always)]
    fn interface(&self, index: InterfaceIndex) -> Option<&Interface> {
        maps::INTERFACES.get(index.0)
    }

    #[inline(always)]
    fn request_neighbour(&self, wanted: NeighbourWanted) -> bool {
        let Some(mut entry) = maps::WANTED.reserve(0) else { return false };
        entry.write(wanted);
        entry.submit(0);
        true
    }

    #[inline(always)]
    fn answers(&self) -> Option<&Word> {
        maps::ANSWERS.get(0)
    }

    #[inline(always)]
    fn first_seen(&self, place: u32) -> Option<&Word> {
        maps::FIRST_SEEN.get(place)
    }

    #[inline(always)]
    fn count_forwarded(&self, number: BackendNumber, bytes: u64) {
        counters::backend(number, |counters| counters::add(&mut counters.forwarded, bytes));
    }

    #[inline(always)]
    fn count_returned(&self, number: BackendNumber, bytes: u64) {
        counters::backend(number, |counters| counters::add(&mut counters.returned, bytes));
    }

    #[inline(always)]
    fn count_new_flow(&self, number: BackendNumber) {
        counters::backend(number, |counters| counters.new_flows += 1);
    }

    #[inline(always)]
    fn count_refusal(&self, number: BackendNumber) {
        counters::backend(number, |counters| counters.refused += 1);
    }

    #[inline(always)]
    fn count_unanswered(&self, number: BackendNumber) {
        counters::backend(number, |counters| counters.unanswered += 1);
    }

    #[inline(always)]
    fn count_retried_flow(&self, number: ServiceNumber) {
        counters::service(number, |counters| counters.retried_flows += 1);
    }

    #[inline(always)]
    fn count_refused(&self, number: ServiceNumber, bytes: u64) {
        counters::service(number, |counters| counters::add(&mut counters.refused, bytes));
    }
}

macro_rules! flow_tables {
    ($family:ty, $record:ty, $flows:ident, $reply_index:ident, $half_open:ident, $half_open_cpu:ident, $scratch:ident, $calls:ident) => {
        impl FlowTable<$family> for KernelTables {
            #[inline(always)]
            fn bucket(&self, index: BucketIndex) -> Option<&Bucket<$record>> {
                maps::$flows.get(index.0)
            }

            #[inline(always)]
            fn line(&self, index: LineIndex) -> Option<&ReplyLine> {
                maps::$reply_index.get(index.0)
            }

            #[inline(always)]
            fn half_open(&self) -> Option<HalfOpen<'_>> {
                let batch = <$family>::shape(maps::SETTINGS.get()).half_open_batch;
                let own = maps::$half_open_cpu.get(0)?;
                Some(HalfOpen { shared: maps::$half_open.get(0)?, own: Some((own, batch)) })
            }

            #[inline(always)]
            fn load(&self, id: BackendId) -> Option<&Load> {
                let backend = self.backend(id).filter(|backend| backend.id == id)?;
                Some(self.load_of(backend))
            }

            #[inline(always)]
            fn report(&self, record: RecordIndex, generation: u32) {
                if maps::SHARES_FLOWS.load() != 0 {
                    subprograms::report(FlowId::new(<$family>::IS_V6, record, generation).0);
                }
            }

            #[inline(always)]
            fn count(&self, backend: BackendId, before: State, after: State) {
                subprograms::$calls::count(backend.0, before.0.into(), after.0.into());
            }
        }

        impl Storage<$family> for KernelTables {
            #[inline(always)]
            fn scratch(&self) -> Option<&Scratch<$family>> {
                maps::$scratch.get(0)
            }

            #[inline(always)]
            fn route(&self, source: $family, destination: $family) -> Result<Route, Reason> {
                Routed::route(self.0, source, destination)
            }
        }

        impl Steps<$family> for KernelTables {
            #[inline(always)]
            fn in_bucket(
                &self,
                bucket: BucketIndex,
                states: States,
                except: Option<RecordIndex>,
            ) -> Result<Option<RecordIndex>, Reason> {
                pack::to_found(subprograms::$calls::in_bucket(bucket.0, states.0, pack::record(except)))
            }

            #[inline(always)]
            fn candidate(
                &self,
                bucket: BucketIndex,
                preferred: u32,
                protocol: u32,
                now: Ticks,
            ) -> Result<Candidate, Reason> {
                pack::to_candidate(subprograms::$calls::candidate(bucket.0, preferred, protocol, now.0))
            }

            #[inline(always)]
            fn write_reply_tuple(&self, record: RecordIndex, probe: u32) -> Result<(), Reason> {
                pack::to_result(subprograms::$calls::write_reply_tuple(record.0, probe))
            }

            #[inline(always)]
            fn usable(&self, slot: PoolSlot) -> Result<(), Reason> {
                pack::to_result(subprograms::$calls::usable(slot.0))
            }

            #[inline(always)]
            fn usable_instead(&self, slot: PoolSlot, probe: u32) -> Result<(), Reason> {
                pack::to_result(subprograms::$calls::usable_instead(slot.0, probe))
            }

            #[inline(always)]
            fn better(&self, best: Offer, id: BackendId) -> Offer {
                Offer(subprograms::$calls::better(best.0, id.0))
            }

            #[inline(always)]
            fn preload(&self) {
                subprograms::$calls::preload();
            }

            #[inline(always)]
            fn least(
                &self,
                slots: SlotRange,
                among: Among,
                refused_by: BackendId,
                now: Ticks,
            ) -> Result<PoolSlot, Reason> {
                let (among, compared) = pack::among(among);
                let slots = pack::range(slots);
                pack::to_slot(subprograms::least(slots, among, compared, refused_by.0, now.0))
            }

            #[inline(always)]
            fn reserve(&self, record: RecordIndex, generation: u32, probe: u32, evict: Holders) -> Reserve {
                pack::to_reserve(subprograms::$calls::reserve(record.0, generation, probe, evict.0))
            }

            #[inline(always)]
            fn free(&self, record: RecordIndex, control: Control) {
                subprograms::$calls::free(record.0, control.0);
            }

            #[inline(always)]
            fn end(&self, record: RecordIndex, control: Control) {
                subprograms::$calls::end(record.0, control.0);
            }

            #[inline(always)]
            fn expire(&self, bucket: BucketIndex, now: Ticks) {
                subprograms::$calls::expire(bucket.0, now.0);
            }

            #[inline(always)]
            fn choose_record(
                &self,
                record: RecordIndex,
                control: Control,
                segment: Segment,
            ) -> Result<Option<RecordIndex>, Reason> {
                pack::to_found(subprograms::$calls::choose_record(
                    record.0,
                    control.0,
                    pack::segment(segment),
                ))
            }

            #[inline(always)]
            fn advance(
                &self,
                record: RecordIndex,
                control: Control,
                side: Side,
                segment: Segment,
                idle: Ticks,
            ) -> Result<(), Retry> {
                let (packed, sender) = (pack::segment(segment), pack::sender(side, idle));
                match subprograms::$calls::advance(record.0, control.0, packed, segment.sequence, sender) {
                    0 => Ok(()),
                    _ => Err(Retry),
                }
            }

            #[inline(always)]
            fn trace_new_flow(&self) {
                trace::new_flow::<$family>();
            }

            #[inline(always)]
            fn trace_rejected(&self, reason: Reason) {
                trace::rejected(self.0, reason);
            }
        }
    };
}

flow_tables!(V4, Record4, FLOWS4, REPLY_INDEX4, HALF_OPEN4, HALF_OPEN_CPU4, SCRATCH4, v4);
flow_tables!(V6, Record6, FLOWS6, REPLY_INDEX6, HALF_OPEN6, HALF_OPEN_CPU6, SCRATCH6, v6);
