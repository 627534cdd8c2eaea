//! The core's steps as global functions: the verifier checks each once, independent of its callers.
//!
//! They take and return numbers ([`super::pack`]); larger values are in `maps::SCRATCH4` and `SCRATCH6`.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use lb_common::{
    backend::BackendId,
    clock::Ticks,
    flow::{BucketIndex, Control, FlowId, RecordIndex, State},
    net::{V4, V6},
    pool::PoolSlot,
};

use super::{maps, pack, tables::KernelTables};
use crate::{
    picker::{
        least,
        offer::{self, Offer},
        usable,
    },
    storage::{Maps as _, Storage},
    table::evict,
    table::expire,
    table::lifecycle,
    table::preload,
    table::record::{self, States},
    table::reply_index::{self, Holders},
    table::reply_tuple,
    table::transition,
};

const TABLES: KernelTables = KernelTables(core::ptr::null_mut());

/// [`least::of`], of both families.
#[unsafe(export_name = "least")]
#[inline(never)]
pub extern "C" fn least(slots: u64, among: u64, compared: u64, refused_by: u32, now: u32) -> u64 {
    let (slots, among) = (pack::to_range(slots), pack::to_among(among, compared));
    pack::slot(least::of(&TABLES, slots, among, BackendId(refused_by), Ticks(now)))
}

/// Reports a flow of either family to the daemon.
///
/// The daemon is not woken up: that would cost more than all the rest of a new flow. It looks every few milliseconds.
#[unsafe(export_name = "report")]
#[inline(never)]
pub extern "C" fn report(flow: u64) -> u32 {
    if let Some(mut entry) = maps::FLOW_EVENTS.reserve(0) {
        entry.write(FlowId(flow));
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    } else if let Some(lost) = maps::FLOW_EVENTS_LOST.get(0) {
        lost.fetch_add(1);
    }
    0
}

macro_rules! global_functions {
    ($module:ident, $family:ty, $in_bucket:literal, $candidate:literal, $usable:literal, $usable_instead:literal,
     $better:literal, $preload:literal, $write_reply_tuple:literal, $reserve:literal, $count:literal,
     $free:literal, $end:literal, $expire:literal, $choose_record:literal, $advance:literal) => {
        /// The functions of one family.
        pub mod $module {
            use super::*;

            /// [`record::in_bucket`]
            #[unsafe(export_name = $in_bucket)]
            #[inline(never)]
            pub extern "C" fn in_bucket(bucket: u32, states: u32, except: u32) -> u32 {
                pack::found(record::in_bucket::<$family>(
                    &TABLES,
                    BucketIndex(bucket),
                    States(states),
                    Some(RecordIndex(except)),
                ))
            }

            /// [`evict::candidate`]
            #[unsafe(export_name = $candidate)]
            #[inline(never)]
            pub extern "C" fn candidate(bucket: u32, preferred: u32, protocol: u32, now: u32) -> u64 {
                pack::candidate(evict::candidate::<$family>(
                    &TABLES,
                    TABLES.settings(),
                    BucketIndex(bucket),
                    preferred,
                    protocol,
                    Ticks(now),
                ))
            }

            /// [`reply_tuple::write`]
            #[unsafe(export_name = $write_reply_tuple)]
            #[inline(never)]
            pub extern "C" fn write_reply_tuple(record: u32, probe: u32) -> u32 {
                pack::result(reply_tuple::write::<$family>(&TABLES, RecordIndex(record), probe))
            }

            /// [`usable::from`]
            #[unsafe(export_name = $usable)]
            #[inline(never)]
            pub extern "C" fn usable(slot: u32) -> u32 {
                pack::result(usable::from::<$family>(&TABLES, PoolSlot(slot)))
            }

            /// [`usable::instead`]
            #[unsafe(export_name = $usable_instead)]
            #[inline(never)]
            pub extern "C" fn usable_instead(slot: u32, probe: u32) -> u32 {
                pack::result(usable::instead::<$family>(&TABLES, PoolSlot(slot), probe))
            }

            /// [`offer::better`]
            #[unsafe(export_name = $better)]
            #[inline(never)]
            pub extern "C" fn better(best: u64, id: u32) -> u64 {
                offer::better::<$family>(&TABLES, Offer(best), BackendId(id)).0
            }

            /// [`preload::reply_line`]
            #[unsafe(export_name = $preload)]
            #[inline(never)]
            pub extern "C" fn preload() -> u32 {
                let flow = Storage::<$family>::scratch(&TABLES);
                flow.and_then(|flow| preload::reply_line(&TABLES, flow));
                0
            }

            /// [`reply_index::reserve`]
            #[unsafe(export_name = $reserve)]
            #[inline(never)]
            pub extern "C" fn reserve(record: u32, generation: u32, probe: u32, evict: u32) -> u64 {
                pack::reserve(reply_index::reserve::<$family>(
                    &TABLES,
                    RecordIndex(record),
                    generation,
                    probe,
                    Holders(evict),
                ))
            }

            /// [`transition::count`]
            #[unsafe(export_name = $count)]
            #[inline(never)]
            pub extern "C" fn count(backend: u32, before: u32, after: u32) -> u32 {
                let (before, after) = (State(before as u8), State(after as u8));
                transition::count::<$family>(&TABLES, BackendId(backend), before, after);
                0
            }

            /// [`reply_index::free`]
            #[unsafe(export_name = $free)]
            #[inline(never)]
            pub extern "C" fn free(record: u32, control: u64) -> u32 {
                let settings = TABLES.settings();
                reply_index::free::<$family>(&TABLES, settings, RecordIndex(record), Control(control));
                0
            }

            /// [`reply_index::end`]
            #[unsafe(export_name = $end)]
            #[inline(never)]
            pub extern "C" fn end(record: u32, control: u64) -> u32 {
                reply_index::end::<$family>(&TABLES, RecordIndex(record), Control(control));
                0
            }

            /// [`expire::in_bucket`]
            #[unsafe(export_name = $expire)]
            #[inline(never)]
            pub extern "C" fn expire(bucket: u32, now: u32) -> u32 {
                expire::in_bucket::<$family>(&TABLES, BucketIndex(bucket), Ticks(now));
                0
            }

            /// [`lifecycle::choose_record`]
            #[unsafe(export_name = $choose_record)]
            #[inline(never)]
            pub extern "C" fn choose_record(record: u32, control: u64, packed: u64) -> u32 {
                let segment = pack::to_segment(packed, 0);
                pack::found(lifecycle::choose_record::<$family>(
                    &TABLES,
                    RecordIndex(record),
                    Control(control),
                    segment,
                ))
            }

            /// [`lifecycle::advance`]
            #[unsafe(export_name = $advance)]
            #[inline(never)]
            pub extern "C" fn advance(
                record: u32,
                control: u64,
                packed: u64,
                sequence: u32,
                sender: u32,
            ) -> u32 {
                let segment = pack::to_segment(packed, sequence);
                let (side, idle) = pack::to_sender(sender);
                let (record, control) = (RecordIndex(record), Control(control));
                lifecycle::advance::<$family>(&TABLES, record, control, side, segment, idle).is_err().into()
            }
        }
    };
}

global_functions!(
    v4,
    V4,
    "in_bucket4",
    "candidate4",
    "usable4",
    "usable_instead4",
    "better4",
    "preload4",
    "write_reply_tuple4",
    "reserve4",
    "count4",
    "free4",
    "end4",
    "expire_bucket4",
    "choose_record4",
    "advance4"
);
global_functions!(
    v6,
    V6,
    "in_bucket6",
    "candidate6",
    "usable6",
    "usable_instead6",
    "better6",
    "preload6",
    "write_reply_tuple6",
    "reserve6",
    "count6",
    "free6",
    "end6",
    "expire_bucket6",
    "choose_record6",
    "advance6"
);
