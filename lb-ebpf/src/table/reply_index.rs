//! The reply index: how a reply finds its record, and how a reply tuple gets one owner.
//!
//! A line never holds two live hints with one tag, so that a reply has one candidate and no hint is overwritten. A CPU
//! that wants a reply tuple writes its hint by compare-exchange, then looks at the line again: of two CPUs that both
//! found the tuple free, at least one sees the other and takes its hint back.

use lb_common::{
    cell::fence,
    clock::{age, is_over},
    flow::{Control, HINTS, Hint, HintLine, Shape, State},
    net::Protocol,
    reason::Reason,
    settings::Settings,
};

use crate::{
    family::{Family, RecordOf, Tuple},
    opaque::opaque,
    storage::{FlowTable, Storage, count_half_open},
    table::hash::reduce,
    table::record::{self, Found, by_number, tag},
};

#[inline(always)]
const fn line_of(hash: u64, shape: Shape) -> u32 {
    reduce(hash as u32, shape.lines)
}

/// The one hint of a line with this tag.
#[inline(always)]
fn lookup(line: &HintLine, tag: u32) -> Hint {
    let (mut found, mut i) = (Hint::NONE, 0);
    while i < HINTS {
        let hint = Hint(line.hint[i].load());
        if hint.tag() == tag && hint.0 != 0 {
            found = hint;
        }
        i += 1;
    }
    found
}

/// The flow of a reply: the record that the hint names, if it really answers.
#[inline(always)]
pub fn reply<'a, F: Family>(
    tables: &'a impl FlowTable<F>,
    tuple: &Tuple<F>,
    hash: u64,
    shape: Shape,
) -> Result<Option<Found<'a, F>>, Reason> {
    let line = tables.line(line_of(hash, shape)).ok_or(Reason::Internal)?;
    let hint = lookup(line, tag(hash));
    if hint.0 == 0 {
        return Ok(None);
    }
    let found = by_number(tables, hint.record())?;
    Ok((found.control.state().is_live() && answers(found.record, tuple)).then_some(found))
}

#[inline(always)]
fn answers<F: Family>(record: &RecordOf<F>, tuple: &Tuple<F>) -> bool {
    fence();
    record.backend.get() == tuple.source
        && record.source.get() == tuple.destination
        && record.reply_ports.get() == tuple.ports
        && u32::from(record.owner.get().protocol()) == tuple.protocol
}

/// The flows that a new one may take a reply tuple from. Expired flows always give theirs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holders(pub u32);

impl Holders {
    /// No others.
    pub const EXPIRED: Self = Self(0);
    /// Closed flows.
    pub const CLOSED: Self = Self(1);
    /// Closed, reset and half-open flows.
    pub const UNCERTAIN: Self = Self(2);
}

/// What became of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// The reply tuple belongs to the new flow.
    Mine,
    /// The tuple, or its slot in the line, belongs to a flow that may not be evicted.
    Taken,
    /// The holder, of this [`age`], could be evicted.
    Evictable(u64),
    /// An element of the maps is missing ([`Reason::Internal`]).
    Missing,
}

impl Reserve {
    /// In the order in which it is worth to try again: `Mine`, `Taken`, and then the oldest holder last.
    #[inline(always)]
    pub const fn rank(self) -> u64 {
        match self {
            Self::Mine => 0,
            Self::Taken => 1,
            Self::Evictable(age) => 2 + age,
            Self::Missing => u64::MAX,
        }
    }
}

/// Reserves the reply tuple that a record holds already, and evicts its holder if that is one of `evict`.
///
/// In a full line `probe` says whose slot is asked for: the probes of a new flow ask for all of them.
#[inline(always)]
pub fn reserve<F: Family>(
    tables: &impl Storage<F>,
    number: u32,
    generation: u32,
    probe: u32,
    evict: Holders,
) -> Reserve {
    let (Some(settings), Some(flow)) = (tables.settings(), tables.scratch()) else { return Reserve::Missing };
    let hash = F::hash(&settings.keys, &flow.rewritten.get().reversed());
    let Some(line) = tables.line(line_of(hash, F::shape(settings))) else { return Reserve::Missing };
    let (now, protocol) = (flow.now.get(), flow.tuple.get().protocol);
    let tag = tag(hash);
    let mine = Hint::new(tag, generation, number);
    let (mut free, mut same, mut matches, mut i) = (u64::from(probe), 0, 0, 0);
    while i < HINTS {
        let hint = line.hint[i].load();
        if hint == 0 {
            free = opaque(i as u64, now.into());
        } else if Hint(hint).tag() == tag {
            same = opaque(i as u64, hint);
            matches += opaque(1, hint);
        }
        i += 1;
    }
    if matches > 1 {
        return Reserve::Taken;
    }
    let slot = if matches == 1 { same } else { free };
    let word = &line.hint[slot as usize & (HINTS - 1)];
    let old = Hint(word.load());
    // Looked into here and not in the loop, where the verifier would pay for it eight times.
    if old.0 != 0 {
        let Ok(holder) = by_number::<F>(tables, old.record()) else { return Reserve::Missing };
        let is_current = holder.control.state().0 != State::EMPTY.0
            && holder.control.generation() as u8 == old.generation();
        if is_current {
            let state = holder.control.state();
            // nat: the holder of this tuple is the client's own flow. Whether that was really reset the SYN itself can ask
            // of its backend (`insert::rejoin`); only a tuple of ours is one that another client may be waiting for.
            let is_own = matches == 1 && flow.rewritten.get().source == flow.tuple.get().source;
            let (seen, theirs) = (holder.record.last_seen.load(), holder.record.owner.get().protocol());
            if !state.holds_tuple() {
                return Reserve::Taken;
            }
            let age = age(now, seen);
            if !is_over(age, state.timeout(theirs)) {
                let needed = if state.is_closed() {
                    Holders::CLOSED
                } else if state.is_half_open() && !outranks(theirs, protocol) || state.is_reset() && !is_own {
                    Holders::UNCERTAIN
                } else {
                    return Reserve::Taken;
                };
                if evict < needed {
                    return Reserve::Evictable(age.into());
                }
            }
            if !empty(tables, holder.record, holder.control) {
                return Reserve::Taken;
            }
        }
    }
    if !word.replace(old.0, mine.0) {
        return Reserve::Taken;
    }
    i = 0;
    while i < HINTS {
        let hint = Hint(line.hint[i].load());
        if GUARD_RESCAN && hint.0 != 0 && hint.tag() == tag && hint.0 != mine.0 {
            word.replace(mine.0, 0);
            return Reserve::Taken;
        }
        i += 1;
    }
    Reserve::Mine
}

/// UDP has no handshake to prove, so it may never take what half-open TCP holds.
#[inline(always)]
pub const fn outranks(theirs: u8, newcomer: u32) -> bool {
    theirs == Protocol::Tcp as u8 && newcomer == Protocol::Udp as u32
}

/// Empties a record that is still as `control` says.
#[inline(always)]
fn empty<F: Family>(table: &impl FlowTable<F>, record: &RecordOf<F>, control: Control) -> bool {
    if !record.control.replace(control.0, Control::new(control.generation(), State::EMPTY, 0).0) {
        return false;
    }
    if control.state().is_half_open() {
        count_half_open::<F>(table, -1);
    }
    true
}

/// Releases the reply tuple of a record's owner of `generation`: takes its hint back. The tuple must still be in the
/// record.
#[inline(always)]
pub fn release<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    record: &RecordOf<F>,
    number: u32,
    generation: u32,
) {
    let hash = F::hash(&settings.keys, &record::reply_of(record));
    let hint = Hint::new(tag(hash), generation, number);
    let Some(line) = table.line(line_of(hash, F::shape(settings))) else { return };
    let mut i = 0;
    while i < HINTS {
        if line.hint[i].load() == hint.0 {
            line.hint[i].replace(hint.0, 0);
        }
        i += 1;
    }
}

/// Frees a record that is still as `control` says: its flow is over.
#[inline(always)]
pub fn free<F: Family>(table: &impl FlowTable<F>, settings: &Settings, number: u32, control: Control) {
    let Ok(Found { record, .. }) = by_number::<F>(table, number) else { return };
    // Owned for a moment: no other CPU changes the record or takes it while its hint goes.
    if !record.control.replace(control.0, control.with_state(State::BUSY).0) {
        return;
    }
    if control.state().is_half_open() {
        count_half_open::<F>(table, -1);
    }
    release::<F>(table, settings, record, number, control.generation());
    record.control.store(Control::new(control.generation(), State::EMPTY, 0).0);
}

/// Frees a record as [`free`] does, in an order that may be interrupted: a daemon can be killed between two steps, a
/// program cannot, and would leave a record that stays busy.
///
/// The hint goes first: once the record is empty, another flow may reserve the same reply tuple. Packets may move the
/// flow to another state meanwhile.
pub fn sweep<F: Family>(table: &impl FlowTable<F>, settings: &Settings, found: &Found<'_, F>) {
    release::<F>(table, settings, found.record, found.number, found.control.generation());
    let mut control = found.control;
    while found.control.is_still(control) && !empty(table, found.record, control) {
        control = Control(found.record.control.load());
    }
}

/// The second look at the line, which the race test can do without to see that it is needed.
const GUARD_RESCAN: bool = !cfg!(feature = "without_rescan");
