//! A reference model of the lifetime of flows, written from the RFCs and the design, not from the program: it has
//! connections and times, but no records, buckets or reply index, and hashes only where a picker uses them.
//!
//! It turns random acts into a row of inputs and expected outcomes. The row then checks the rest.

mod act;
mod connection;
mod ejection;
mod picker;
mod pool;

use std::collections::BTreeMap;

use lb_common::{flow::State, net::Protocol, reason::Reason, service::Reject};
use lb_ebpf::packet::tcp::{ACK, FIN, RST, SYN};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

pub use self::{
    act::{Act, Conversation, Segment, acts},
    pool::Pool,
};
use self::{
    connection::{Connection, Side},
    ejection::Ejections,
    pool::NAMES,
};
use crate::{
    case::{Case, Depends, Drops, Expected, Opens, Passes, Reaches, Returns, answered},
    dialogue::{BACKEND_ISN, Dialogue, Message, flow},
    world::Kind,
};

/// How often a client that is refused gets another backend.
const RETRIES: u32 = 2;

/// Turns acts into a row.
pub fn case(kind: Kind, pool: Pool, acts: &[Act]) -> Case {
    let mut case = Case::new(format!("{kind}, {pool:?}: {acts:?}"), pool.world(kind));
    let mut model = Model::new(kind, pool);
    for act in acts {
        case = model.play(case, *act);
        if model.is_ambiguous {
            break;
        }
    }
    case
}

/// The same rows at every run, for an engine that is slower than memory.
pub fn rows(kinds: impl IntoIterator<Item = Kind>, pool: Pool) -> Vec<Case> {
    let mut runner = TestRunner::deterministic();
    let strategy = acts(pool, ROW_ACTS);
    let mut row = |kind| strategy.new_tree(&mut runner).ok().map(|tree| case(kind, pool, &tree.current()));
    kinds.into_iter().flat_map(|kind| (0..ROWS).filter_map(|_| row(kind)).collect::<Vec<_>>()).collect()
}

const ROWS: usize = 100;
const ROW_ACTS: usize = 80;

struct Model {
    kind: Kind,
    pool: Pool,
    now_s: u64,
    turn: usize,
    accepts: Vec<bool>,
    /// How often each backend has lost its flows.
    losses: Vec<u32>,
    ejections: Ejections,
    clients: Vec<Client>,
    /// The row ends here: two connections of a client have the same backend, and it cannot distinguish them; or a flow may get
    /// any of several backends.
    is_ambiguous: bool,
}

/// A client's port and its connections: a proven one, and one that is not proven yet.
#[derive(Default)]
struct Client {
    old: Option<Connection>,
    fresh: Option<Connection>,
    /// Backends of connections that are over, and those connections whose backend is told so.
    past: BTreeMap<usize, Option<Connection>>,
}

/// What the connection that a client has just lost says about the next one.
#[derive(Clone, Copy, Default)]
struct Before {
    /// The backend that has failed it.
    failed_by: Option<usize>,
    /// How many backends have refused it.
    refusals: u32,
    /// The backend for which it still counts when loads are compared: a SYN's backend is chosen before its old record is freed.
    counted_at: Option<usize>,
}

impl Model {
    fn new(kind: Kind, pool: Pool) -> Self {
        Self {
            kind,
            pool,
            now_s: 0,
            turn: 0,
            accepts: vec![true; pool.backends],
            losses: vec![0; pool.backends],
            ejections: Ejections::new(pool.backends),
            clients: (0..pool.clients).map(|_| Client::default()).collect(),
            is_ambiguous: false,
        }
    }

    /// Adds an act to the row.
    fn play(&mut self, case: Case, act: Act) -> Case {
        match act {
            Act::Wait(seconds) => {
                self.now_s += seconds;
                case.after_s(seconds)
            }
            Act::Rest(backend) => {
                self.accepts[backend] = false;
                case.change(move |world| world.rest(NAMES[backend]))
            }
            Act::Accept(backend) => {
                self.accepts[backend] = true;
                case.change(move |world| world.find_mut(NAMES[backend]).accepts = true)
            }
            Act::Renew(backend) => {
                self.losses[backend] += 1;
                case.change(move |world| world.renew(NAMES[backend]))
            }
            Act::Client { dialogue, segment } => {
                let client = self.dialogue(dialogue);
                let expected = self.client_sends(usize::from(dialogue), segment);
                let mine = &self.clients[usize::from(dialogue)];
                if let (Some(old), Some(fresh)) = (&mine.old, &mine.fresh) {
                    self.is_ambiguous |= old.backend == fresh.backend;
                }
                if self.is_ambiguous {
                    return case;
                }
                self.with_states(case.step(client_message(client, segment), expected), dialogue)
            }
            Act::Backend { dialogue, conversation, segment } => {
                let Some((backend, expected)) =
                    self.backend_sends(usize::from(dialogue), conversation, segment)
                else {
                    return case;
                };
                let message = backend_message(self.dialogue(dialogue), NAMES[backend], segment);
                self.with_states(case.step(message, expected), dialogue)
            }
        }
    }

    fn dialogue(&self, number: u16) -> Dialogue {
        flow(self.kind, number)
    }

    fn with_states(&self, case: Case, dialogue: u16) -> Case {
        let client = &self.clients[usize::from(dialogue)];
        let states: Vec<State> =
            [&client.old, &client.fresh].into_iter().flatten().map(Connection::state).collect();
        case.flow(self.dialogue(dialogue), &states)
    }

    /// A client sends a segment on one of its connections, or opens another.
    fn client_sends(&mut self, number: usize, segment: Segment) -> Expected {
        let is_tcp = self.kind.protocol == Protocol::Tcp;
        let opens = !is_tcp || matches!(segment, Segment::Syn);
        let (now_s, most) = (self.now_s, self.most_ejected());
        let client = &mut self.clients[number];
        let mut before = Before::default();

        let for_fresh = match (&client.old, &client.fresh) {
            (_, None) => false,
            (None, Some(_)) => true,
            // A bare RST rejects the ACK of a backend in TIME-WAIT (RFC 9293, 3.10.7.3).
            (Some(_), Some(fresh)) => opens || matches!(segment, Segment::Rst) || fresh.is_proven_by(segment),
        };
        let reopens = opens && is_tcp && client.old.as_ref().is_some_and(Connection::may_be_reopened);
        let slot = if for_fresh { &mut client.fresh } else { &mut client.old };
        if let Some(connection) = slot
            && (for_fresh || !reopens)
        {
            let backend = connection.backend;
            let waits_for_another = !connection.is_proven && opens && !self.accepts[backend];
            let is_over =
                connection.losses != self.losses[backend] || connection.is_idle(now_s) || waits_for_another;
            if !is_over {
                // A SYN that was duplicated on the way says nothing about the backend.
                let is_unanswered = connection.waits()
                    && !connection.is_refused
                    && matches!(segment, Segment::Syn)
                    && now_s > connection.seen_s;
                // One that has answered another client meanwhile is alive.
                if is_unanswered && !self.ejections.has_answered_since(backend, connection.seen_s) {
                    self.ejections.failed(backend, most, now_s);
                }
                if connection.is_refused || is_unanswered && self.ejections.has(backend) {
                    before = Before {
                        failed_by: Some(backend),
                        refusals: connection.refusals(),
                        counted_at: None,
                    };
                } else {
                    connection.seen_s = now_s;
                    if connection.client_sends(segment) {
                        // A proven reopening connection replaces the old one.
                        let proven = client.fresh.take();
                        client.past.extend(
                            std::mem::replace(&mut client.old, proven).map(|old| (old.backend, None)),
                        );
                    }
                    return Reaches(NAMES[backend]);
                }
            }
            let is_counted = connection.is_counted()
                && connection.losses == self.losses[backend]
                && !connection.is_idle(now_s);
            before.counted_at = (is_tcp && is_counted && before.failed_by.is_none()).then_some(backend);
            // The record of a lost connection is kept until another one needs it, unless the client opens one at once.
            let lost = slot.take().filter(|it| !opens && it.losses != self.losses[backend]);
            client.past.insert(backend, lost);
        }
        self.retire_expired();
        if !opens {
            // A reset is never answered.
            let is_reset = matches!(segment, Segment::Rst | Segment::OtherRst);
            return if is_reset { Drops(Reason::NoFlow) } else { self.rejected(Reason::NoFlow) };
        }
        self.open(number, before)
    }

    /// How many backends may be ejected at the same time.
    fn most_ejected(&self) -> usize {
        if self.pool.ejects { self.accepting().len() / 2 } else { 0 }
    }

    fn accepting(&self) -> Vec<usize> {
        (0..self.pool.backends).filter(|backend| self.accepts[*backend]).collect()
    }

    /// Has the backend fewer flows than its maximum?
    fn has_room(&self, backend: usize) -> bool {
        self.pool.max_flows == 0 || self.flows(backend) < self.pool.max_flows as usize
    }

    fn flows(&self, backend: usize) -> usize {
        let connections = self.clients.iter().flat_map(|it| [&it.old, &it.fresh]).flatten();
        let of_backend = |it: &&Connection| it.backend == backend && it.losses == self.losses[backend];
        connections.filter(of_backend).filter(|it| it.is_counted()).count()
    }

    /// What happens to a packet without a flow or a backend.
    fn rejected(&self, reason: Reason) -> Expected {
        match self.pool.reject {
            Reject::Drop => Drops(reason),
            Reject::Reset => answered(self.kind.protocol, reason),
        }
    }

    /// A backend's segment of a connection that was lost.
    fn after_a_loss(&self, lost: &Connection, segment: Segment) -> Expected {
        if lost.is_forgotten(self.now_s) {
            Passes(Reason::NotService)
        } else if matches!(segment, Segment::Rst | Segment::OtherRst) && lost.protocol == Protocol::Tcp {
            Drops(Reason::NoFlow)
        } else {
            self.rejected(Reason::NoFlow)
        }
    }

    /// A packet of no connection ends those that have expired. Their backends are told nothing.
    fn retire_expired(&mut self) {
        let now_s = self.now_s;
        for client in &mut self.clients {
            let expired = [&mut client.old, &mut client.fresh].into_iter();
            let expired: Vec<_> = expired.filter_map(|it| it.take_if(|it| it.is_idle(now_s))).collect();
            client.past.extend(expired.into_iter().map(|it| (it.backend, None)));
        }
    }

    fn open(&mut self, number: usize, before: Before) -> Expected {
        let mut candidates = self.accepting();
        if candidates.is_empty() {
            return self.rejected(Reason::NoBackend);
        }
        let first = self.first(number, &candidates, before.counted_at);
        candidates.rotate_left(first);
        candidates.retain(|backend| self.has_room(*backend));
        if candidates.is_empty() {
            return Drops(Reason::BackendsFull);
        }
        // The backend that has failed the client is the last resort.
        let others = candidates.iter().copied().filter(|backend| Some(*backend) != before.failed_by);
        let others: Vec<usize> = others.collect();
        let admitted = others.iter().copied().find(|backend| self.ejections.admits(*backend, self.now_s));
        let backend = match (admitted, &others[..]) {
            (Some(backend), _) | (None, &[backend]) => backend,
            (None, []) => candidates[0],
            (None, _) => {
                self.is_ambiguous = true; // All are ejected.
                return Depends;
            }
        };
        let client = &mut self.clients[number];
        if let Some(old) = &mut client.old {
            old.has_reopening = true;
        }
        client.past.remove(&backend);
        let mut fresh = Connection::new(self.kind.protocol, backend, self.losses[backend], self.now_s);
        (fresh.is_reopening, fresh.retries) = (client.old.is_some(), before.refusals);
        client.fresh = Some(fresh);
        Opens(NAMES[backend])
    }

    /// A backend sends a segment, if there is a connection for it.
    fn backend_sends(
        &mut self,
        number: usize,
        conversation: Conversation,
        segment: Segment,
    ) -> Option<(usize, Expected)> {
        let (most, accepting) = (self.most_ejected(), self.accepting());
        let client = &self.clients[number];
        let there = match conversation {
            Conversation::Old => client.old.as_ref(),
            Conversation::Fresh => client.fresh.as_ref(),
            Conversation::Past => {
                let (backend, lost) = client.past.first_key_value()?;
                let expected = lost.as_ref().map(|lost| self.after_a_loss(lost, segment));
                return Some((*backend, expected.unwrap_or(Passes(Reason::NotService))));
            }
        };
        if let Some(lost) = there.filter(|it| it.losses != self.losses[it.backend]) {
            return Some((lost.backend, self.after_a_loss(lost, segment)));
        }
        let client = &mut self.clients[number];
        let is_old = matches!(conversation, Conversation::Old);
        let connection = if is_old { client.old.as_mut()? } else { client.fresh.as_mut()? };
        let backend = connection.backend;
        if connection.is_idle(self.now_s) {
            return Some((backend, Passes(Reason::NotService)));
        }
        connection.seen_s = self.now_s;
        if connection.is_proven {
            connection.note_close(Side::Backend, segment);
            return Some((backend, Returns));
        }
        match segment {
            _ if self.kind.protocol == Protocol::Udp => connection.answered = Some(0),
            Segment::Ack(_) => {
                // If it has refused before, that RST was forged.
                (connection.answered, connection.is_refused) = (Some(BACKEND_ISN), false);
                self.ejections.answered(backend, self.now_s);
            }
            Segment::Rst if connection.is_refused => return Some((backend, Drops(Reason::Retried))),
            Segment::Rst if connection.waits() => {
                if !self.ejections.has_answered_since(backend, self.now_s) {
                    self.ejections.failed(backend, most, self.now_s);
                }
                let has_another = accepting.iter().any(|other| *other != backend);
                if self.pool.retries && has_another && connection.retries < RETRIES {
                    connection.is_refused = true;
                    return Some((backend, Drops(Reason::Retried)));
                }
                client.is_refused();
            }
            Segment::Rst | Segment::OtherRst if !connection.waits() => client.is_refused(),
            Segment::Syn | Segment::Data | Segment::Fin | Segment::Rst | Segment::OtherRst => {}
        }
        Some((backend, Returns))
    }
}

impl Client {
    /// The client receives a refusal. A reopening connection ends; any other is as if both sides had closed.
    fn is_refused(&mut self) {
        let Some(mut refused) = self.fresh.take() else { return };
        if refused.is_reopening {
            self.past.insert(refused.backend, None);
        } else {
            refused.is_proven = true;
            refused.closed = [true; 2];
            self.old = Some(refused);
        }
    }
}

fn client_message(dialogue: Dialogue, segment: Segment) -> Message {
    match (dialogue.protocol, segment) {
        (Protocol::Udp, _) => dialogue.datagram(b"word"),
        (Protocol::Tcp, Segment::Syn) => dialogue.syn(),
        (Protocol::Tcp, Segment::Ack(beyond)) => dialogue.ack(beyond),
        (Protocol::Tcp, Segment::Data) => dialogue.data(),
        (Protocol::Tcp, Segment::Fin) => dialogue.fin(),
        (Protocol::Tcp, Segment::Rst) => dialogue.rst(),
        (Protocol::Tcp, Segment::OtherRst) => dialogue.rst().with(|packet| packet.tcp_mut().flags |= ACK),
    }
}

fn backend_message(dialogue: Dialogue, backend: &'static str, segment: Segment) -> Message {
    let flags = match (dialogue.protocol, segment) {
        (Protocol::Udp, _) => return dialogue.later_answer(backend),
        (Protocol::Tcp, Segment::Ack(_)) => SYN | ACK,
        (Protocol::Tcp, Segment::Syn | Segment::Data) => ACK,
        (Protocol::Tcp, Segment::Fin) => FIN | ACK,
        (Protocol::Tcp, Segment::Rst) => RST | ACK,
        (Protocol::Tcp, Segment::OtherRst) => RST,
    };
    let message = dialogue.reply(backend, flags);
    if flags == SYN | ACK { message.with(|packet| packet.tcp_mut().sequence = BACKEND_ISN) } else { message }
}
