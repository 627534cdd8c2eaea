//! Hints: how a reply finds its record, and how a reply tuple gets one owner.
//!
//! A line never holds two live hints with one tag, so that a reply has one candidate and nobody's hint is overwritten.
//! Whoever wants a reply tuple writes his hint by compare-exchange, then looks at the line again: of two writers who
//! both found the tuple free at least one sees the other and takes his hint back.

use lb_common::{
    cell::fence,
    clock::{age, is_over},
    flow::{Control, HINTS, Hint, HintLine, Shape, State},
    net::Protocol,
    settings::Settings,
};

use crate::{
    family::{Family, RecordOf, Tuple},
    opaque::opaque,
    table::hash::reduce,
    table::record::{self, Found, by_number, tag},
    table::scratch::NewFlow,
    tables::{FlowTables, Tables, count_half_open},
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
    tables: &'a impl FlowTables<F>,
    tuple: &Tuple<F>,
    hash: u64,
    shape: Shape,
) -> Option<Found<'a, F>> {
    let hint = lookup(tables.line(line_of(hash, shape))?, tag(hash));
    if hint.0 == 0 {
        return None;
    }
    let found = by_number(tables, hint.record())?;
    (found.control.state().is_live() && answers(found.record, tuple)).then_some(found)
}

#[inline(always)]
fn answers<F: Family>(record: &RecordOf<F>, tuple: &Tuple<F>) -> bool {
    fence();
    record.backend.get() == tuple.source
        && record.source.get() == tuple.destination
        && record.reply_ports.get() == tuple.ports
        && u32::from(record.owner.get().protocol()) == tuple.protocol
}

/// [`claim`]: nobody has to give up a tuple.
pub const NO_FORCE: u32 = 0;
/// [`claim`]: closed flows have to.
pub const CLOSED_GIVE_WAY: u32 = 1;
/// [`claim`]: half-open flows have to, too.
pub const HALF_OPEN_GIVE_WAY: u32 = 2;

/// The reply tuple is mine.
pub const CLAIMED: u64 = 0;
/// Somebody has it, or the place for its hint, who keeps it.
pub const TAKEN: u64 = 1;
/// Somebody has it who would have to give it up; the holder's age is added.
pub const EVICTABLE: u64 = 2;

/// Claims the reply tuple that was proposed for a record, and that the record already holds.
///
/// Returns [`CLAIMED`], [`TAKEN`], or [`EVICTABLE`] plus the holder's age. `force` says who has to go. In a full line
/// `probe` says whose place is asked for: a newcomer's probes ask for all of them.
#[inline(always)]
pub fn claim<F: Family, T: Tables + FlowTables<F>>(
    tables: &T,
    number: u32,
    generation: u32,
    probe: u32,
    force: u32,
) -> u64 {
    let Some(settings) = tables.settings() else { return TAKEN };
    let flow: Option<&NewFlow<F>> = tables.new_flow();
    let Some(flow) = flow else { return TAKEN };
    let hash = F::hash(&settings.keys, &flow.rewritten.get().reversed());
    let Some(line) = FlowTables::<F>::line(tables, line_of(hash, F::shape(settings))) else { return TAKEN };
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
        return TAKEN;
    }
    let slot = if matches == 1 { same } else { free };
    let word = &line.hint[slot as usize & (HINTS - 1)];
    let old = Hint(word.load());
    // Looked into here and not in the loop, where the verifier would pay for it eight times.
    if old.0 != 0
        && let Some(holder) = by_number::<F>(tables, old.record())
        && holder.control.state().0 != State::EMPTY.0
        && holder.control.generation() as u8 == old.generation()
    {
        let state = holder.control.state();
        let (seen, theirs) = (holder.record.last_seen.load(), holder.record.owner.get().protocol());
        if !state.holds_tuple() {
            return TAKEN;
        }
        let age = age(now, seen);
        if !is_over(age, state.timeout(theirs)) {
            let needed = if state.is_closed() {
                CLOSED_GIVE_WAY
            } else if state.is_half_open() && !outranks(theirs, protocol) {
                HALF_OPEN_GIVE_WAY
            } else {
                return TAKEN;
            };
            if force < needed {
                return EVICTABLE + u64::from(age);
            }
        }
        if !give_up(tables, &holder) {
            return TAKEN;
        }
    }
    if !word.replace(old.0, mine.0) {
        return TAKEN;
    }
    i = 0;
    while i < HINTS {
        let hint = Hint(line.hint[i].load());
        if GUARD_RESCAN && hint.0 != 0 && hint.tag() == tag && hint.0 != mine.0 {
            word.replace(mine.0, 0);
            return TAKEN;
        }
        i += 1;
    }
    CLAIMED
}

/// UDP has no handshake to prove, so it may never take what half-open TCP holds.
#[inline(always)]
pub const fn outranks(theirs: u8, newcomer: u32) -> bool {
    theirs == Protocol::Tcp as u8 && newcomer == Protocol::Udp as u32
}

/// Empties a record that is still as it was found.
#[inline(always)]
fn give_up<F: Family>(tables: &impl FlowTables<F>, found: &Found<'_, F>) -> bool {
    let empty = Control::new(found.control.generation(), State::EMPTY, 0);
    if !found.record.control.replace(found.control.0, empty.0) {
        return false;
    }
    if found.control.state().is_half_open() {
        count_half_open::<F>(tables, -1);
    }
    true
}

/// Takes back the hint of a record's owner of `generation`. The reply tuple must still be in the record.
#[inline(always)]
pub fn forget<F: Family>(
    tables: &impl FlowTables<F>,
    settings: &Settings,
    record: &RecordOf<F>,
    number: u32,
    generation: u32,
) {
    let hash = F::hash(&settings.keys, &record::reply_of(record));
    let hint = Hint::new(tag(hash), generation, number);
    let Some(line) = tables.line(line_of(hash, F::shape(settings))) else { return };
    let mut i = 0;
    while i < HINTS {
        if line.hint[i].load() == hint.0 {
            line.hint[i].replace(hint.0, 0);
        }
        i += 1;
    }
}

/// Frees a record that is still as `control` says: nobody needs its flow any more.
#[inline(always)]
pub fn free<F: Family, T: Tables + FlowTables<F>>(tables: &T, number: u32, control: Control) {
    let Some(settings) = tables.settings() else { return };
    let Some(Found { record, .. }) = by_number::<F>(tables, number) else { return };
    // Its owner for a moment: nobody changes the record or takes it while its hint goes.
    if !record.control.replace(control.0, control.with_state(State::BUSY).0) {
        return;
    }
    if control.state().is_half_open() {
        count_half_open::<F>(tables, -1);
    }
    forget::<F>(tables, settings, record, number, control.generation());
    record.control.store(Control::new(control.generation(), State::EMPTY, 0).0);
}

/// The second look at the line, which the race test can do without to see that it is needed.
const GUARD_RESCAN: bool = !cfg!(feature = "without_rescan");
