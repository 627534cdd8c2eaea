//! A peer that gets the flows of this node: deltas, and from time to time all of them in a round.
//!
//! ```text
//!   Round ──all sent──▶ Rest ──60 s──▶ Round
//!     │ outbox full       │
//!     └──▶ Behind ◀───────┘        Behind ──outbox empty──▶ Round
//! ```
//!
//! A peer that is late never makes this node wait, and takes no more memory than its outbox: what does not fit is dropped, and
//! the peer gets all flows again.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::group::wire::Frame;

/// The time between two rounds. A flow that ended unnoticed stays on the peers for at most two of them.
pub const REST: Duration = Duration::from_secs(60);
/// Later rounds read a chunk of the tables at most this often, so that they take little of a CPU. With 262,144 flows, a round
/// takes 3 s.
pub const PACE: Duration = Duration::from_millis(20);
/// A peer that leaves this number of frames unacknowledged is gone, or is no xlb.
const UNACKNOWLEDGED_MAX: usize = 8192;
/// Room for the frames of a chunk, so that deltas always find room beside them.
const ROOM: usize = 24;

/// See the [module](self).
#[derive(Debug)]
pub struct Subscriber {
    pub connection: u64,
    outbox: mpsc::Sender<Arc<Frame>>,
    sending: Sending,
    /// Is this the first round of the connection, or one that repairs it?
    is_urgent: bool,
    /// The sequence numbers that the peer has not acknowledged, and when they were sent.
    unacknowledged: VecDeque<(u64, Instant)>,
    pub sent: u64,
    pub resyncs: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// The next chunk begins there, and is not read before then.
    Round { at: u32, due: Instant },
    /// Until the next round.
    Rest { until: Instant },
    /// The outbox was full.
    Behind,
}

/// What the subscriber needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A round begins.
    Begin,
    /// The chunk of the tables that begins there.
    Chunk(u32),
    /// Only deltas.
    Nothing,
}

impl Subscriber {
    pub fn new(connection: u64, outbox: mpsc::Sender<Arc<Frame>>, now: Instant) -> Self {
        Self {
            connection,
            outbox,
            sending: Sending::Rest { until: now },
            is_urgent: true,
            unacknowledged: VecDeque::new(),
            sent: 0,
            resyncs: 0,
        }
    }

    /// What to send besides deltas.
    pub fn next(&mut self, now: Instant) -> Next {
        match self.sending {
            Sending::Behind if self.outbox.capacity() == self.outbox.max_capacity() => {
                self.is_urgent = true;
                Next::Begin
            }
            Sending::Rest { until } if until <= now => Next::Begin,
            Sending::Round { at, due } if due <= now && self.outbox.capacity() >= ROOM => Next::Chunk(at),
            Sending::Behind | Sending::Rest { .. } | Sending::Round { .. } => Next::Nothing,
        }
    }

    /// The round has begun, or a chunk was sent. `next`: where the next one begins; `None`: the round has ended.
    pub fn advance(&mut self, next: Option<u32>, now: Instant) {
        if self.sending == Sending::Behind && next != Some(0) {
            return;
        }
        self.sending = match next {
            Some(at) => Sending::Round { at, due: if self.is_urgent { now } else { now + PACE } },
            None => {
                self.is_urgent = false;
                Sending::Rest { until: now + REST }
            }
        };
    }

    /// The peer needs flows that it was not sent: it gets all of them then, and changes meanwhile.
    pub fn begin_round(&mut self, at: Instant) {
        if self.sending != Sending::Behind {
            self.is_urgent = true;
            self.sending = Sending::Rest { until: at };
        }
    }

    /// What the round of [`begin_round`](Self::begin_round) may wait for is known.
    pub fn wait_no_longer(&mut self, now: Instant) {
        if let Sending::Rest { until } = &mut self.sending
            && self.is_urgent
        {
            *until = now.min(*until);
        }
    }

    /// All flows must be sent again.
    pub fn restart(&mut self) {
        if self.sending != Sending::Behind {
            self.resyncs += 1;
            self.sending = Sending::Behind;
        }
    }

    /// Sends a frame, unless the peer is behind.
    pub fn send(&mut self, frame: &Arc<Frame>, now: Instant) {
        if self.sending == Sending::Behind {
            return;
        }
        if self.outbox.try_send(Arc::clone(frame)).is_err() {
            self.restart();
            return;
        }
        self.sent += (frame.flows.len() + frame.ended.len()) as u64;
        self.unacknowledged.push_back((frame.sequence, now));
    }

    pub fn acknowledged(&mut self, sequence: u64) {
        while self.unacknowledged.front().is_some_and(|(sent, _)| *sent <= sequence) {
            self.unacknowledged.pop_front();
        }
    }

    /// Must the connection end?
    pub fn is_lost(&self) -> bool {
        self.unacknowledged.len() > UNACKNOWLEDGED_MAX
    }

    /// The age of the oldest frame that the peer has not acknowledged.
    pub fn lag(&self, now: Instant) -> Duration {
        let oldest = self.unacknowledged.front();
        oldest.map_or(Duration::ZERO, |(_, sent)| now.saturating_duration_since(*sent))
    }
}
