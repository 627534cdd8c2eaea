//! The flow tables, for the task that shares flows with the other nodes of a group.
//!
//! ```text
//!   XDP program ──ring buffer──┐
//!   controller  ──channel──────┴─▶ ids of flows that have become shared, or are shared no more
//!   flow tables ◀──read, adopt, end──▶ this task
//! ```
//!
//! The tables belong to all CPUs, to the controller and to this task. Each follows the protocol of [`lb_ebpf::table`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use lb_common::{
    backend::BackendId,
    clock::{Age, Ticks},
    flow::{Control, FlowId, Owner, Proof, RecordIndex, State, WAYS},
    net::Protocol,
    service::Mode,
    settings::Settings,
};
use lb_ebpf::{
    family::Family,
    table::{
        adopt::{self, Foreign, Place, Refusal},
        record::{self, by_index},
    },
};

use super::{
    flows::{Flows, Table, endpoint},
    shapes::pin_name,
    shared_flow::SharedFlow,
};

/// Flows that the controller ends, and that wait to be reported. If there are more, all flows are sent again.
const ENDED_HERE: usize = 65_536;
/// Buckets that are read at a time: at half load, 2,000 flows.
const CHUNK: u32 = 512;

/// Where the ids of flows come from.
pub trait FlowEvents: Send {
    /// Takes at most `most` ids.
    fn take(&mut self, most: usize, ids: &mut Vec<FlowId>);
    /// How many ids were lost since the start, because there was no room.
    fn lost(&self) -> u64;
}

/// Reports flows that the daemon itself ends.
#[derive(Clone, Debug)]
pub struct Reporter {
    sender: SyncSender<FlowId>,
    lost: Arc<AtomicU64>,
}

/// The other end of a [`Reporter`].
#[derive(Debug)]
pub struct Reported {
    receiver: Receiver<FlowId>,
    lost: Arc<AtomicU64>,
}

impl Reporter {
    /// Both ends.
    pub fn new() -> (Self, Reported) {
        let (sender, receiver) = sync_channel(ENDED_HERE);
        let lost = Arc::new(AtomicU64::new(0));
        (Self { sender, lost: Arc::clone(&lost) }, Reported { receiver, lost })
    }

    /// Never waits.
    pub fn report(&self, id: FlowId) {
        match self.sender.try_send(id) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What a record holds for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The flow is shared. When its last packet was seen.
    Shared(SharedFlow, Ticks),
    /// It has ended.
    Ended(SharedFlow, Ending),
    /// Its record is another flow's.
    Gone,
}

/// How a flow has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By FINs of its client and its backend, or in silence. Late packets are forwarded.
    Closed,
    /// By a RST of these sides. A packet of the other side restores it.
    Reset(Resets),
    /// By an operator. Its packets are refused.
    Removed,
}

/// The sides that have sent RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resets {
    /// The client.
    Client,
    /// The backend.
    Backend,
    /// Both.
    Both,
}

/// What a flow of another node is on this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The id of its backend.
    pub backend: BackendId,
    /// How its packets are rewritten.
    pub mode: Mode,
    /// If this node does not have the flow, and its last packet was seen before then, it has ended here.
    pub seen_before: Option<Ticks>,
}

/// A flow in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Its id here.
    pub id: FlowId,
    /// When a packet was seen last, on any node.
    pub seen: Ticks,
    /// When this node had seen one. `None`: it did not have the flow.
    pub seen_here: Option<Ticks>,
}

/// See the [module](self).
pub struct SharedTables<E> {
    flows: Arc<Flows>,
    settings: Settings,
    events: E,
    reported: Reported,
    lost: u64,
}

impl<E> fmt::Debug for SharedTables<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTables").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl<E: FlowEvents> SharedTables<E> {
    /// `reported`: what the controller ends.
    pub fn new(flows: Arc<Flows>, settings: Settings, events: E, reported: Reported) -> Self {
        let lost = events.lost();
        Self { flows, settings, events, reported, lost }
    }

    /// The settings of the tables.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// A number that is the same as long as the tables are: they are replaced together with their keys, or if their layout
    /// changes.
    pub fn epoch(&self) -> u64 {
        let mut bytes: Vec<u8> = self.settings.keys.iter().flat_map(|key| key.to_ne_bytes()).collect();
        ["FLOWS4", "FLOWS6"].iter().for_each(|map| bytes.extend(pin_name(map).into_bytes()));
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// Takes the ids of at most `most` flows that have become shared, or are shared no more.
    pub fn take(&mut self, most: usize, ids: &mut Vec<FlowId>) {
        ids.extend(self.reported.receiver.try_iter().take(most));
        self.events.take(most.saturating_sub(ids.len()), ids);
    }

    /// How many ids were lost since the last call.
    pub fn take_lost(&mut self) -> u64 {
        let lost = self.events.lost() + self.reported.lost.load(Ordering::Relaxed);
        lost.saturating_sub(std::mem::replace(&mut self.lost, lost))
    }

    /// Reads the flow of an id.
    pub fn read(&self, id: FlowId, now: Ticks) -> Reading {
        if id.is_v6() { read(&self.flows.v6, id, now) } else { read(&self.flows.v4, id, now) }
    }

    /// Visits the shared flows of the chunk at `from` that have not expired. Returns where the next one begins.
    pub fn walk(
        &self,
        from: u32,
        now: Ticks,
        visit: &mut dyn FnMut(FlowId, SharedFlow, Ticks),
    ) -> Option<u32> {
        let v4 = self.flows.v4.buckets.len() as u32;
        let all = v4 + self.flows.v6.buckets.len() as u32;
        let begin = from.min(all);
        let end = begin.saturating_add(CHUNK).min(if begin < v4 { v4 } else { all });
        if begin < v4 {
            walk(&self.flows.v4, begin..end, now, visit);
        } else {
            walk(&self.flows.v6, begin - v4..end - v4, now, visit);
        }
        (end < all).then_some(end)
    }

    /// Writes another node's flow.
    pub fn adopt(&self, flow: &SharedFlow, place: &Placement, now: Ticks) -> Result<Adopted, Refusal> {
        if flow.client.is_ipv6() {
            adopt(&self.flows.v6, &self.settings, flow, place, now)
        } else {
            adopt(&self.flows.v4, &self.settings, flow, place, now)
        }
    }

    /// Another node's flow has ended there. Returns its id here, if it was shared here.
    pub fn end(&self, flow: &SharedFlow, ending: Ending, now: Ticks) -> Option<FlowId> {
        if flow.client.is_ipv6() {
            end_flow(&self.flows.v6, &self.settings, flow, ending, now)
        } else {
            end_flow(&self.flows.v4, &self.settings, flow, ending, now)
        }
    }

    /// The same, and its late packets find no record.
    pub fn end_and_free(&self, flow: &SharedFlow, now: Ticks) -> Option<FlowId> {
        let id = self.end(flow, Ending::Closed, now)?;
        let state = Ending::Closed.state();
        if id.is_v6() {
            adopt::free(&self.flows.v6, &self.settings, id.record(), id.generation(), state);
        } else {
            adopt::free(&self.flows.v4, &self.settings, id.record(), id.generation(), state);
        }
        Some(id)
    }

    /// No other node has the flow any more. It stays if a packet has come here since `seen`.
    pub fn forget(&self, id: FlowId, seen: Ticks) {
        let place = Place { record: id.record(), generation: id.generation(), seen, seen_here: Some(seen) };
        if id.is_v6() {
            adopt::forget(&self.flows.v6, &self.settings, &place);
        } else {
            adopt::forget(&self.flows.v4, &self.settings, &place);
        }
    }
}

impl Ending {
    /// The state of a flow that has ended like this.
    fn state(self) -> State {
        const CLIENT: u8 = State::SHORT_CLIENT;
        const BACKEND: u8 = State::SHORT_BACKEND;
        let reset = |sides: u8| State(State::ESTABLISHED.0 | State::RESET | sides);
        match self {
            Self::Closed => State(State::ESTABLISHED.0 | State::FIN_CLIENT | State::FIN_BACKEND),
            Self::Reset(Resets::Client) => reset(CLIENT),
            Self::Reset(Resets::Backend) => reset(BACKEND),
            Self::Reset(Resets::Both) => reset(CLIENT | BACKEND),
            Self::Removed => State::ENDED,
        }
    }

    /// How a flow with this state, which is not shared, has ended. `None`: it has not begun.
    fn of(state: State) -> Option<Self> {
        let [client, backend] = [State::SHORT_CLIENT, State::SHORT_BACKEND].map(|side| state.0 & side != 0);
        if state == State::ENDED {
            Some(Self::Removed)
        } else if state.is_reset() {
            Some(Self::Reset(match (client, backend) {
                (true, false) => Resets::Client,
                (false, true) => Resets::Backend,
                (true, true) | (false, false) => Resets::Both,
            }))
        } else {
            (state.holds_tuple() && !state.is_half_open()).then_some(Self::Closed)
        }
    }
}

/// The id of a record's flow.
const fn id<F: Family>(record: RecordIndex, generation: u32) -> FlowId {
    FlowId::new(F::IS_V6, record, generation)
}

fn read<F: Family>(table: &Table<F>, flow: FlowId, now: Ticks) -> Reading {
    let Ok(found) = by_index::<F>(table, flow.record()) else { return Reading::Gone };
    let Some((shared, seen)) = describe(table, flow.record(), now) else { return Reading::Gone };
    let control = Control(found.record.control.load());
    let (state, is_same) = (control.state(), control.generation() == flow.generation());
    if !is_same || found.control.generation() != flow.generation() {
        return Reading::Gone;
    }
    if state.is_shared() {
        return Reading::Shared(shared, seen);
    }
    Ending::of(state).map_or(Reading::Gone, |ending| Reading::Ended(shared, ending))
}

/// The fields of a record, whatever its state: the caller compares its generation afterwards.
fn describe<F: Family>(table: &Table<F>, index: RecordIndex, now: Ticks) -> Option<(SharedFlow, Ticks)> {
    let found = by_index::<F>(table, index).ok()?;
    let (request, reply) = (record::request_of::<F>(found.record), record::reply_of::<F>(found.record));
    let proof = Proof(found.record.proof.load());
    let seen = Ticks(found.record.last_seen.load());
    let protocol = Protocol::from_number(request.protocol as u8)?;
    let is_answered = protocol == Protocol::Tcp && proof.is_of(found.control.generation());
    let flow = SharedFlow {
        protocol,
        client: endpoint::<F>(request.source, request.ports.source()),
        listen: endpoint::<F>(request.destination, request.ports.destination()),
        backend: endpoint::<F>(reply.source, reply.ports.source()),
        source: endpoint::<F>(reply.destination, reply.ports.destination()),
        answer: is_answered.then(|| proof.sequence()),
        idle: Age::new(now, seen).elapsed().as_duration(),
    };
    Some((flow, seen))
}

fn walk<F: Family>(
    table: &Table<F>,
    buckets: std::ops::Range<u32>,
    now: Ticks,
    visit: &mut dyn FnMut(FlowId, SharedFlow, Ticks),
) {
    for index in buckets.start * WAYS as u32..buckets.end * WAYS as u32 {
        let Ok(found) = by_index::<F>(table, RecordIndex(index)) else { return };
        let control = found.control;
        if !control.state().is_shared() {
            continue;
        }
        let flow = id::<F>(found.index, control.generation());
        if let Reading::Shared(shared, seen) = read(table, flow, now)
            && !Age::new(now, seen).is_over(control.state().timeout(shared.protocol.number()))
        {
            visit(flow, shared, seen);
        }
    }
}

fn adopt<F: Family>(
    table: &Table<F>,
    settings: &Settings,
    flow: &SharedFlow,
    place: &Placement,
    now: Ticks,
) -> Result<Adopted, Refusal> {
    let foreign = foreign::<F>(flow, place, now);
    let place = adopt::adopt(table, settings, &foreign, now)?;
    let Place { record, generation, seen, seen_here } = place;
    Ok(Adopted { id: id::<F>(record, generation), seen, seen_here })
}

fn end_flow<F: Family>(
    table: &Table<F>,
    settings: &Settings,
    flow: &SharedFlow,
    ending: Ending,
    now: Ticks,
) -> Option<FlowId> {
    // Only its tuples and its time matter.
    let any = Placement { backend: BackendId::NONE, mode: Mode::Nat, seen_before: None };
    let foreign = foreign::<F>(flow, &any, now);
    let place = adopt::place_of(table, settings, &foreign)?;
    adopt::end(table, &place, foreign.seen, ending.state()).then(|| id::<F>(place.record, place.generation))
}

fn foreign<F: Family>(flow: &SharedFlow, place: &Placement, now: Ticks) -> Foreign<F> {
    let owner = Owner::new(place.backend, place.mode, flow.protocol.number());
    Foreign {
        request: flow.request(),
        reply: flow.reply(),
        owner,
        answer: flow.answer,
        seen: now.earlier_by(ticks(flow.idle)),
        seen_before: place.seen_before,
    }
}

/// A flow that has been idle for longer than the longest timeout has expired, and moments wrap.
fn ticks(idle: Duration) -> Ticks {
    let longest = State::ESTABLISHED.timeout(Protocol::Tcp.number()).as_duration() + Duration::from_secs(1);
    Ticks::from_ns(idle.min(longest).as_nanos() as u64)
}

#[cfg(test)]
pub mod fixture;
#[cfg(test)]
mod tests;
