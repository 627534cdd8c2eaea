//! Slow paths as global functions: the verifier checks each once, by itself, whoever calls it.
//!
//! They take scalars (and the context, which it knows); what is larger lies in `maps::NEW_FLOW4` and `NEW_FLOW6`.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    flow::Control,
    net::{V4, V6},
    reason::Reason,
};

use super::{
    tables::KernelTables,
    trace::{self, Traced},
};
use crate::{
    family::Family,
    packet::tcp::{Segment, Side},
    path::classify,
    path::reply,
    table::evict,
    table::insert,
    table::lifecycle,
    table::record,
    table::reply_index,
    table::reply_tuple,
    table::scratch::NewFlow,
    tables::{FlowTables, Tables},
};

const NOBODY: u32 = u32::MAX;

/// A record's number, as a global function returned it.
#[inline(always)]
pub fn record(number: u32) -> Option<u32> {
    (number != NOBODY).then_some(number)
}

#[inline(always)]
fn number(result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(reason) => reason as u32 + 1,
    }
}

/// A result, from the number that a global function returned for it.
#[inline(always)]
pub fn result(number: u32) -> Result<(), Reason> {
    if number == 0 {
        return Ok(());
    }
    let number = (number - 1) as usize;
    if number >= Reason::ALL.len() {
        return Err(Reason::Contended);
    }
    // SAFETY: `Reason` is `repr(u32)`, its numbers are 0..ALL.len() without a gap (a test of lb-common says so).
    Err(unsafe { core::mem::transmute::<u32, Reason>(number as u32) })
}

/// Flags and acknowledgement of a segment in one word: a function has five arguments.
#[inline(always)]
pub fn pack(segment: Segment) -> u64 {
    u64::from(segment.flags) << 32 | u64::from(segment.acknowledgement)
}

#[inline(always)]
fn unpack(packed: u64, sequence: u32) -> Segment {
    Segment { flags: (packed >> 32) as u8, acknowledgement: packed as u32, sequence }
}

const TABLES: KernelTables = KernelTables(core::ptr::null_mut());

#[inline(always)]
fn insert<F: Traced>() -> u32
where
    KernelTables: FlowTables<F>,
{
    let flow: Option<&NewFlow<F>> = TABLES.new_flow();
    let Some(flow) = flow else { return number(Err(Reason::Contended)) };
    let made = insert::insert(&TABLES, flow);
    if made.is_ok() {
        trace::opened::<F>();
    }
    number(made)
}

macro_rules! global_functions {
    ($module:ident, $family:ty, $in_bucket:literal, $admit:literal, $insert:literal, $victim:literal, $propose:literal, $claim:literal,
     $free:literal, $contest:literal, $advance:literal, $refresh:literal) => {
        /// The functions of one family.
        pub mod $module {
            use super::*;

            /// [`record::in_bucket`]
            #[unsafe(export_name = $in_bucket)]
            #[inline(never)]
            pub extern "C" fn in_bucket(bucket: u32, wanted: u32, not: u32) -> u32 {
                record::in_bucket::<$family>(&TABLES, bucket, wanted, not).unwrap_or(NOBODY)
            }

            /// [`classify::admit`]
            #[unsafe(export_name = $admit)]
            #[inline(never)]
            pub extern "C" fn admit(ctx: *mut xdp_md) -> u32 {
                number(classify::admit::<$family, _>(&KernelTables(ctx)))
            }

            /// [`insert::insert`]
            #[unsafe(export_name = $insert)]
            #[inline(never)]
            pub extern "C" fn insert() -> u32 {
                super::insert::<$family>()
            }

            /// [`evict::victim`]
            #[unsafe(export_name = $victim)]
            #[inline(never)]
            pub extern "C" fn victim(bucket: u32, preferred: u32, protocol: u32, now: u32) -> u64 {
                let Some(settings) = TABLES.settings() else { return u64::MAX };
                let shape = <$family>::shape(settings);
                evict::victim::<$family, _>(&TABLES, shape, bucket, preferred, protocol, now)
            }

            /// [`reply_tuple::propose`]
            #[unsafe(export_name = $propose)]
            #[inline(never)]
            pub extern "C" fn propose(record: u32, turn: u64, probe: u32) -> u32 {
                number(reply_tuple::propose::<$family, _>(&TABLES, record, turn, probe))
            }

            /// [`reply_index::claim`]
            #[unsafe(export_name = $claim)]
            #[inline(never)]
            pub extern "C" fn claim(record: u32, generation: u32, probe: u32, force: u32) -> u64 {
                reply_index::claim::<$family, _>(&TABLES, record, generation, probe, force)
            }

            /// [`reply_index::free`]
            #[unsafe(export_name = $free)]
            #[inline(never)]
            pub extern "C" fn free(record: u32, control: u64) -> u32 {
                reply_index::free::<$family, _>(&TABLES, record, Control(control));
                0
            }

            /// [`lifecycle::contest`]
            #[unsafe(export_name = $contest)]
            #[inline(never)]
            pub extern "C" fn contest(record: u32, control: u64, packed: u64) -> u32 {
                let segment = unpack(packed, 0);
                lifecycle::contest::<$family, _>(&TABLES, record, Control(control), segment).unwrap_or(NOBODY)
            }

            /// [`lifecycle::advance`]
            #[unsafe(export_name = $advance)]
            #[inline(never)]
            pub extern "C" fn advance(
                record: u32,
                control: u64,
                packed: u64,
                sequence: u32,
                is_client: u32,
            ) -> u32 {
                let segment = unpack(packed, sequence);
                let side = if is_client != 0 { Side::Client } else { Side::Backend };
                lifecycle::advance::<$family, _>(&TABLES, record, Control(control), side, segment);
                0
            }

            /// [`reply::refresh`]
            #[unsafe(export_name = $refresh)]
            #[inline(never)]
            pub extern "C" fn refresh(ctx: *mut xdp_md, record: u32, control: u64) -> u32 {
                number(reply::refresh::<$family, _>(&KernelTables(ctx), record, Control(control)))
            }
        }
    };
}

global_functions!(
    v4,
    V4,
    "in_bucket4",
    "admit4",
    "insert4",
    "victim4",
    "propose4",
    "claim4",
    "free4",
    "contest4",
    "advance4",
    "refresh4"
);
global_functions!(
    v6,
    V6,
    "in_bucket6",
    "admit6",
    "insert6",
    "victim6",
    "propose6",
    "claim6",
    "free6",
    "contest6",
    "advance6",
    "refresh6"
);
