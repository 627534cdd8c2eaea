//! The reply index: leads a reply to its record, and ensures that a reply tuple has one owner.
//!
//! A line never holds two live entries with the same tag, so a reply has at most one candidate, and no entry hides
//! another. To reserve a reply tuple, a CPU writes an entry by compare-exchange and reads the line again: of two CPUs
//! that found the same tuple free, at least one sees the other's entry and removes its own.

use lb_common::{
    cell::fence,
    clock::{Age, Ticks},
    flow::{Control, ENTRIES_PER_LINE, LineIndex, RecordIndex, ReplyEntry, ReplyLine, Shape, State},
    net::Protocol,
    reason::Reason,
    settings::Settings,
};

use crate::{
    family::{Family, RecordOf, Tuple},
    opaque::opaque,
    storage::{FlowTable, Storage},
    table::hash::reduce,
    table::record::{self, Found, by_index, tag},
    table::transition,
};

/// The line of a reply tuple, by its hash.
#[inline(always)]
pub const fn line_of(hash: u64, shape: Shape) -> LineIndex {
    LineIndex(reduce(hash as u32, shape.lines))
}

/// The entry of a line with this tag.
#[inline(always)]
fn lookup(line: &ReplyLine, tag: u32) -> ReplyEntry {
    let (mut found, mut i) = (ReplyEntry::NONE, 0);
    while i < ENTRIES_PER_LINE {
        let entry = ReplyEntry(line.entry[i].load());
        if entry.tag() == tag && entry.0 != 0 {
            found = entry;
        }
        i += 1;
    }
    found
}

/// Whose reply is it?
pub enum Owner<'a, F: Family> {
    /// The flow of this record.
    Flow(Found<'a, F>),
    /// The record's flow has been [ended](State::ENDED).
    Ended(Found<'a, F>),
    /// No flow's.
    None,
}

/// The owner of a reply: the record that its entry names, if its tuple matches.
#[inline(always)]
pub fn reply<'a, F: Family>(
    tables: &'a impl FlowTable<F>,
    tuple: &Tuple<F>,
    hash: u64,
    shape: Shape,
) -> Result<Owner<'a, F>, Reason> {
    let line = tables.line(line_of(hash, shape)).ok_or(Reason::Internal)?;
    let entry = lookup(line, tag(hash));
    if entry.0 == 0 {
        return Ok(Owner::None);
    }
    let found = by_index(tables, entry.record())?;
    if !answers(found.record, tuple) {
        return Ok(Owner::None);
    }
    if found.control.state().is_live() {
        return Ok(Owner::Flow(found));
    }
    Ok(if found.control.state() == State::ENDED { Owner::Ended(found) } else { Owner::None })
}

#[inline(always)]
fn answers<F: Family>(record: &RecordOf<F>, tuple: &Tuple<F>) -> bool {
    fence();
    record.backend.get() == tuple.source
        && record.source.get() == tuple.destination
        && record.reply_ports.get() == tuple.ports
        && u32::from(record.owner.get().protocol()) == tuple.protocol
}

/// The flows from which a new flow may evict a reply tuple. Expired flows are always evicted.
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

/// The result of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// The reply tuple belongs to the new flow.
    Mine,
    /// The tuple, or its place in the line, belongs to a flow that may not be evicted.
    Taken,
    /// The holder could be evicted; this is its age.
    Evictable(Age),
    /// An element of the maps is missing ([`Reason::Internal`]).
    Missing,
}

impl Reserve {
    /// Ranks results for a retry: the tuple with the oldest evictable holder comes first.
    #[inline(always)]
    pub const fn rank(self) -> u64 {
        match self {
            Self::Mine => 0,
            Self::Taken => 1,
            Self::Evictable(age) => 2 + age.0 as u64,
            Self::Missing => u64::MAX,
        }
    }
}

/// A reply tuple that a new flow needs.
pub struct Wanted<F: Family> {
    /// The tuple.
    pub reply: Tuple<F>,
    /// The flow's client.
    pub client: F::Address,
    /// The time.
    pub now: Ticks,
}

/// Reserves the reply tuple that was written into a record, and evicts its holder if that is one of `evict`.
#[inline(always)]
pub fn reserve<F: Family>(
    tables: &impl Storage<F>,
    index: RecordIndex,
    generation: u32,
    probe: u32,
    evict: Holders,
) -> Reserve {
    let Some(flow) = tables.scratch() else { return Reserve::Missing };
    let (reply, client) = (flow.rewritten.get().reversed(), flow.tuple.get().source);
    let wanted = Wanted { reply, client, now: flow.now.get() };
    reserve_for(tables, tables.settings(), index, generation, &wanted, probe, evict)
}

/// Reserves a reply tuple for the owner of `generation`, and evicts its holder if that is one of `evict`.
///
/// In a full line, `probe` selects the entry to evict: the probes of a new flow try all of them.
#[inline(always)]
pub fn reserve_for<F: Family>(
    tables: &impl FlowTable<F>,
    settings: &Settings,
    index: RecordIndex,
    generation: u32,
    wanted: &Wanted<F>,
    probe: u32,
    evict: Holders,
) -> Reserve {
    let hash = F::hash(&settings.keys, &wanted.reply);
    let Some(line) = tables.line(line_of(hash, F::shape(settings))) else { return Reserve::Missing };
    let (now, protocol) = (wanted.now, wanted.reply.protocol);
    let tag = tag(hash);
    let mine = ReplyEntry::new(tag, generation, index);
    let (mut free, mut same, mut matches, mut i) = (u64::from(probe), 0, 0, 0);
    while i < ENTRIES_PER_LINE {
        let entry = line.entry[i].load();
        if entry == 0 {
            free = opaque(i as u64, now.0.into());
        } else if ReplyEntry(entry).tag() == tag {
            same = opaque(i as u64, entry);
            matches += opaque(1, entry);
        }
        i += 1;
    }
    if matches > 1 {
        return Reserve::Taken;
    }
    let place = if matches == 1 { same } else { free };
    let word = &line.entry[place as usize & (ENTRIES_PER_LINE - 1)];
    let old = ReplyEntry(word.load());
    // Checked here and not in the loop, where the verifier would explore it eight times.
    if old.0 != 0 {
        let Ok(holder) = by_index::<F>(tables, old.record()) else { return Reserve::Missing };
        let is_current = holder.control.state().0 != State::EMPTY.0
            && holder.control.generation() as u8 == old.generation();
        if is_current {
            let state = holder.control.state();
            // nat: the holder of this tuple is the client's own flow, and no other client needs the tuple. If that flow was
            // reset, the SYN goes to its backend, which can tell whether it really was (`insert::use_closing_flow`).
            let is_own = matches == 1 && wanted.reply.destination == wanted.client;
            let (seen, theirs) =
                (Ticks(holder.record.last_seen.load()), holder.record.owner.get().protocol());
            if !state.holds_tuple() {
                return Reserve::Taken;
            }
            let age = Age::new(now, seen);
            if !age.is_over(state.timeout(theirs)) {
                let needed = if state.is_closed() {
                    Holders::CLOSED
                } else if state.is_half_open() && !outranks(theirs, protocol) || state.is_reset() && !is_own {
                    Holders::UNCERTAIN
                } else {
                    return Reserve::Taken;
                };
                if evict < needed {
                    return Reserve::Evictable(age);
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
    while i < ENTRIES_PER_LINE {
        let entry = ReplyEntry(line.entry[i].load());
        if GUARD_RESCAN && entry.0 != 0 && entry.tag() == tag && entry.0 != mine.0 {
            word.replace(mine.0, 0);
            return Reserve::Taken;
        }
        i += 1;
    }
    Reserve::Mine
}

/// UDP has no handshake to prove, so a UDP flow never evicts a half-open TCP flow.
#[inline(always)]
pub const fn outranks(holder: u8, ours: u32) -> bool {
    holder == Protocol::Tcp as u8 && ours == Protocol::Udp as u32
}

/// Empties a record if its control word is still `control`.
#[inline(always)]
fn empty<F: Family>(table: &impl FlowTable<F>, record: &RecordOf<F>, control: Control) -> bool {
    transition::replace::<F>(table, record, control, Control::new(control.generation(), State::EMPTY, 0))
}

/// Releases the reply tuple of the owner of `generation`: removes its entry. The tuple must still be in the record.
#[inline(always)]
pub fn release<F: Family>(
    table: &impl FlowTable<F>,
    settings: &Settings,
    record: &RecordOf<F>,
    index: RecordIndex,
    generation: u32,
) {
    let hash = F::hash(&settings.keys, &record::reply_of(record));
    let entry = ReplyEntry::new(tag(hash), generation, index);
    let Some(line) = table.line(line_of(hash, F::shape(settings))) else { return };
    let mut i = 0;
    while i < ENTRIES_PER_LINE {
        if line.entry[i].load() == entry.0 {
            line.entry[i].replace(entry.0, 0);
        }
        i += 1;
    }
}

/// Frees a record if its control word is still `control`: its flow has ended.
#[inline(always)]
pub fn free<F: Family>(table: &impl FlowTable<F>, settings: &Settings, index: RecordIndex, control: Control) {
    let Ok(Found { record, .. }) = by_index::<F>(table, index) else { return };
    // Reserved for a moment: no other CPU may change or take the record while its entry is removed.
    if !transition::replace::<F>(table, record, control, control.with_state(State::BUSY)) {
        return;
    }
    release::<F>(table, settings, record, index, control.generation());
    record.control.store(Control::new(control.generation(), State::EMPTY, 0).0);
}

/// Ends a flow. False: it has ended already. Its record stays until another flow needs it.
///
/// A single replacement, because the daemon calls this too, and can be killed between two steps: then at most one flow
/// too many is counted. Packets may change the flow's state meanwhile.
#[inline(always)]
pub fn end<F: Family>(table: &impl FlowTable<F>, index: RecordIndex, seen: Control) -> bool {
    let mut tries = 0;
    while tries < 4 {
        let Ok(found) = by_index::<F>(table, index) else { return false };
        if !seen.is_still(found.control) {
            return false;
        }
        if transition::replace::<F>(
            table,
            found.record,
            found.control,
            found.control.with_state(State::ENDED),
        ) {
            return true;
        }
        tries += 1;
    }
    false
}

/// The second read of the line. The race test removes it to show that it is needed.
const GUARD_RESCAN: bool = !cfg!(feature = "without_rescan");
