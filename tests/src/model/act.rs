//! What happens in a random row: segments of clients and backends, waits, and changes of backends.

use proptest::prelude::*;

use super::Pool;

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
    /// From a client without ACK. From a backend with it: until it has answered, this refuses the connection.
    Rst,
    /// From a client with ACK. From a backend without it: it does not acknowledge the SYN, so it refuses nothing.
    OtherRst,
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

/// Sequences of acts. In a pool that retries, most of them open connections and refuse them.
pub fn acts(pool: Pool, length: usize) -> impl Strategy<Value = Vec<Act>> {
    let opening = if pool.retries { 12 } else { 3 };
    // The controller ends the ejection of a backend that leaves the schedule: no engine plays that part of it.
    let changes = u32::from(!pool.ejects);
    let segment = prop_oneof![
        opening => Just(Segment::Syn),
        3 => Just(Segment::Ack(1)),
        1 => prop::sample::select(vec![0, 65_536, 65_537, 5_000_000]).prop_map(Segment::Ack),
        2 => Just(Segment::Data),
        2 => Just(Segment::Fin),
        2 => Just(Segment::Rst),
        1 => Just(Segment::OtherRst),
    ];
    let of_backend = prop_oneof![12 => segment.clone(), opening => Just(Segment::Rst)];
    let conversation = prop_oneof![
        opening => Just(Conversation::Fresh),
        3 => Just(Conversation::Old),
        1 => Just(Conversation::Past)
    ];
    let (dialogue, backend) = (0..pool.clients, 0..pool.backends);
    let act = prop_oneof![
        8 => (dialogue.clone(), segment.clone()).prop_map(|(dialogue, segment)| Act::Client { dialogue, segment }),
        8 => (dialogue, conversation, of_backend)
            .prop_map(|(dialogue, conversation, segment)| Act::Backend { dialogue, conversation, segment }),
        1 => prop::sample::select(WAITS_S.to_vec()).prop_map(Act::Wait),
        changes => backend.clone().prop_map(Act::Rest),
        changes => backend.clone().prop_map(Act::Accept),
        changes => backend.prop_map(Act::Renew),
    ];
    prop::collection::vec(act, 1..=length)
}
