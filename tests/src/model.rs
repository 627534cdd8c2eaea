//! A reference model of the lifetime of flows, written from the RFCs and the design, not from the program: it has
//! connections and times, but no records, buckets, reply index or hashes.
//!
//! It turns random acts into a row of inputs and expected outcomes. The row then checks the rest.

mod connection;

use std::collections::BTreeMap;

use lb_common::{flow::State, net::Protocol, reason::Reason};
use lb_ebpf::packet::tcp::{ACK, FIN, RST, SYN};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use self::connection::{Connection, Side};
use crate::{
    case::{Case, Drops, Expected, Opens, Passes, Reaches, Resets, Returns, answered},
    dialogue::{BACKEND_ISN, Dialogue, Message},
    world::{Kind, World},
};

/// Enough that a reopening flow seldom gets the backend of the closing one.
const BACKENDS: [&str; 8] = ["web-1", "web-2", "web-3", "web-4", "web-5", "web-6", "web-7", "web-8"];
const DIALOGUES: u16 = 2;

/// One event. Numbers index the model's clients and backends.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// A client sends a segment.
    Client {
        /// Which of the model's clients.
        dialogue: u16,
        /// What it sends.
        segment: Segment,
    },
    /// A backend sends a segment. Without such a connection, nothing happens.
    Backend {
        /// The model's client that receives it.
        dialogue: u16,
        /// The backend is the one of this connection.
        conversation: Conversation,
        /// What it sends.
        segment: Segment,
    },
    /// Seconds pass.
    Wait(u64),
    /// This backend gets no new flows.
    Rest(usize),
    /// This backend gets new flows again.
    Accept(usize),
    /// This backend loses its flows, as one that was in maint.
    Renew(usize),
}

/// A segment. With UDP, all of them are datagrams.
#[derive(Clone, Copy, Debug)]
pub enum Segment {
    /// From a client: a SYN. From a backend: a bare acknowledgement.
    Syn,
    /// From a client: an ACK this far beyond the SYN-ACK. From a backend: a SYN-ACK.
    Ack(u32),
    /// From a client: data, which acknowledges the SYN-ACK. From a backend: a bare acknowledgement.
    Data,
    /// With ACK, from either side.
    Fin,
    /// From a client without ACK, from a backend with it.
    Rst,
}

/// The connection of a client on which a backend sends.
#[derive(Clone, Copy, Debug)]
pub enum Conversation {
    /// A proven one.
    Old,
    /// One that is not proven yet.
    Fresh,
    /// One that has ended.
    Past,
}

/// No wait, and no sum of waits (all are multiples of 7), ends within a second of a timeout, because `last_seen` has a
/// resolution of a quarter of a second.
const WAITS_S: [u64; 8] = [7, 14, 70, 119, 126, 252, 308, 7448];

/// Sequences of acts.
pub fn acts(length: usize) -> impl Strategy<Value = Vec<Act>> {
    let segment = prop_oneof![
        3 => Just(Segment::Syn),
        3 => Just(Segment::Ack(1)),
        1 => prop::sample::select(vec![0, 65_536, 65_537, 5_000_000]).prop_map(Segment::Ack),
        2 => Just(Segment::Data),
        2 => Just(Segment::Fin),
        2 => Just(Segment::Rst),
    ];
    let conversation = prop_oneof![
        3 => Just(Conversation::Fresh),
        3 => Just(Conversation::Old),
        1 => Just(Conversation::Past)
    ];
    let backend = 0..BACKENDS.len();
    let act = prop_oneof![
        8 => (0..DIALOGUES, segment.clone()).prop_map(|(dialogue, segment)| Act::Client { dialogue, segment }),
        8 => (0..DIALOGUES, conversation, segment)
            .prop_map(|(dialogue, conversation, segment)| Act::Backend { dialogue, conversation, segment }),
        1 => prop::sample::select(WAITS_S.to_vec()).prop_map(Act::Wait),
        1 => backend.clone().prop_map(Act::Rest),
        1 => backend.clone().prop_map(Act::Accept),
        1 => backend.prop_map(Act::Renew),
    ];
    prop::collection::vec(act, 1..=length)
}

/// Turns acts into a row.
pub fn case(kind: Kind, acts: &[Act]) -> Case {
    let mut world = World::new(kind);
    for (number, name) in (11..).zip(BACKENDS).skip(world.services[0].backends.len()) {
        world = world.backend(name, kind.ip.inside(number));
    }
    let mut case = Case::new(format!("{kind}: {acts:?}"), world);
    let mut model = Model::new(kind);
    for act in acts {
        case = model.play(case, *act);
        if model.is_ambiguous {
            break;
        }
    }
    case
}

/// The same rows at every run, for an engine that is slower than memory.
pub fn rows() -> Vec<Case> {
    let kinds = Kind::tcp().into_iter().chain(Kind::udp());
    let mut runner = TestRunner::deterministic();
    let strategy = acts(ROW_ACTS);
    let mut row = |kind| strategy.new_tree(&mut runner).ok().map(|tree| case(kind, &tree.current()));
    kinds.flat_map(|kind| (0..ROWS).filter_map(|_| row(kind)).collect::<Vec<_>>()).collect()
}

const ROWS: usize = 100;
const ROW_ACTS: usize = 80;

struct Model {
    kind: Kind,
    now_s: u64,
    turn: usize,
    accepts: [bool; BACKENDS.len()],
    /// How often each backend has lost its flows.
    losses: [u32; BACKENDS.len()],
    clients: Vec<Client>,
    /// Two connections of a client have the same backend, and the row cannot distinguish them: it ends here.
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

impl Model {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            now_s: 0,
            turn: 0,
            accepts: [true; BACKENDS.len()],
            losses: [0; BACKENDS.len()],
            clients: (0..DIALOGUES).map(|_| Client::default()).collect(),
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
                case.change(move |world| world.rest(BACKENDS[backend]))
            }
            Act::Accept(backend) => {
                self.accepts[backend] = true;
                case.change(move |world| world.find_mut(BACKENDS[backend]).accepts = true)
            }
            Act::Renew(backend) => {
                self.losses[backend] += 1;
                case.change(move |world| world.renew(BACKENDS[backend]))
            }
            Act::Client { dialogue, segment } => {
                let client = self.dialogue(dialogue);
                let expected = self.client_sends(usize::from(dialogue), segment);
                let mine = &self.clients[usize::from(dialogue)];
                if let (Some(old), Some(fresh)) = (&mine.old, &mine.fresh)
                    && old.backend == fresh.backend
                {
                    self.is_ambiguous = true;
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
                let message = backend_message(self.dialogue(dialogue), BACKENDS[backend], segment);
                self.with_states(case.step(message, expected), dialogue)
            }
        }
    }

    fn dialogue(&self, number: u16) -> Dialogue {
        Dialogue::new(self.kind).port(40_000 + number)
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
        let (now_s, accepts, losses) = (self.now_s, self.accepts, self.losses);
        let client = &mut self.clients[number];

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
            let waits_for_another = !connection.is_proven && opens && !accepts[backend];
            let is_over =
                connection.losses != losses[backend] || connection.is_idle(now_s) || waits_for_another;
            if !is_over {
                connection.seen_s = now_s;
                if connection.client_sends(segment) {
                    // A proven reopening connection replaces the old one.
                    let proven = client.fresh.take();
                    client
                        .past
                        .extend(std::mem::replace(&mut client.old, proven).map(|old| (old.backend, None)));
                }
                return Reaches(BACKENDS[backend]);
            }
            // The record of a lost connection is kept until another one needs it, unless the client opens one at once.
            let lost = slot.take().filter(|it| !opens && it.losses != losses[backend]);
            client.past.insert(backend, lost);
        }
        if !opens {
            // A reset is never answered.
            let is_reset = matches!(segment, Segment::Rst);
            return if is_reset { Drops(Reason::NoFlow) } else { Resets(Reason::NoFlow) };
        }
        self.open(number)
    }

    fn open(&mut self, number: usize) -> Expected {
        let accepting: Vec<usize> = (0..BACKENDS.len()).filter(|backend| self.accepts[*backend]).collect();
        if accepting.is_empty() {
            return answered(self.kind.protocol, Reason::NoBackend);
        }
        let client = &mut self.clients[number];
        if let Some(old) = &mut client.old {
            old.has_reopening = true;
        }
        let backend = accepting[self.turn % accepting.len()];
        self.turn += 1;
        client.past.remove(&backend);
        let mut fresh = Connection::new(self.kind.protocol, backend, self.losses[backend], self.now_s);
        fresh.is_reopening = client.old.is_some();
        client.fresh = Some(fresh);
        Opens(BACKENDS[backend])
    }

    /// A backend sends a segment, if there is a connection for it.
    fn backend_sends(
        &mut self,
        number: usize,
        conversation: Conversation,
        segment: Segment,
    ) -> Option<(usize, Expected)> {
        let client = &mut self.clients[number];
        let slot = match conversation {
            Conversation::Old => &mut client.old,
            Conversation::Fresh => &mut client.fresh,
            Conversation::Past => {
                let (backend, lost) = client.past.first_key_value()?;
                let expected = lost.as_ref().map(|lost| refused(lost, segment, self.now_s));
                return Some((*backend, expected.unwrap_or(Passes(Reason::NotService))));
            }
        };
        let connection = slot.as_mut()?;
        let backend = connection.backend;
        if connection.losses != self.losses[backend] {
            return Some((backend, refused(connection, segment, self.now_s)));
        }
        if connection.is_idle(self.now_s) {
            return Some((backend, Passes(Reason::NotService)));
        }
        connection.seen_s = self.now_s;
        if connection.is_proven {
            connection.note_close(Side::Backend, segment);
        } else if self.kind.protocol == Protocol::Udp {
            connection.answered = Some(0);
        } else if matches!(segment, Segment::Ack(_)) {
            connection.answered = Some(BACKEND_ISN);
        } else if matches!(segment, Segment::Rst) {
            // Refused: a reopening connection ends; any other is as if both sides had closed.
            let mut refused = slot.take()?;
            if refused.is_reopening {
                client.past.insert(backend, None);
            } else {
                refused.is_proven = true;
                refused.closed = [true; 2];
                client.old = Some(refused);
            }
        }
        Some((backend, Returns))
    }
}

/// A backend's segment of a connection that was lost.
fn refused(lost: &Connection, segment: Segment, now_s: u64) -> Expected {
    if lost.is_forgotten(now_s) {
        Passes(Reason::NotService)
    } else if matches!(segment, Segment::Rst) && lost.protocol == Protocol::Tcp {
        Drops(Reason::NoFlow)
    } else {
        answered(lost.protocol, Reason::NoFlow)
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
    }
}

fn backend_message(dialogue: Dialogue, backend: &'static str, segment: Segment) -> Message {
    let flags = match (dialogue.protocol, segment) {
        (Protocol::Udp, _) => return dialogue.later_answer(backend),
        (Protocol::Tcp, Segment::Ack(_)) => SYN | ACK,
        (Protocol::Tcp, Segment::Syn | Segment::Data) => ACK,
        (Protocol::Tcp, Segment::Fin) => FIN | ACK,
        (Protocol::Tcp, Segment::Rst) => RST | ACK,
    };
    let message = dialogue.reply(backend, flags);
    if flags == SYN | ACK { message.with(|packet| packet.tcp_mut().sequence = BACKEND_ISN) } else { message }
}
