//! One connection of the reference.

use lb_common::{flow::State, net::Protocol};

use super::Segment;

/// Idle times in seconds.
const UNPROVEN_S: u64 = 120; // RFC 4787 REQ-5, and longer than between two SYNs
const TCP_S: u64 = 7440; // RFC 5382 REQ-5
const TCP_ENDING_S: u64 = 240; // RFC 5382 REQ-5
const TCP_RESET_S: u64 = 10; // Linux: nf_conntrack_tcp_timeout_close
const UDP_S: u64 = 300; // RFC 4787 REQ-5

/// The side that sends.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// The first in pairs.
    Client = 0,
    /// The second in pairs.
    Backend = 1,
}

/// A connection between a client's port and a backend.
#[derive(Debug)]
pub struct Connection {
    pub protocol: Protocol,
    /// Its place among the model's backends.
    pub backend: usize,
    /// How often the backend had lost its flows when this one began.
    pub losses: u32,
    /// The time of the last packet of either side, in seconds since the row began.
    pub seen_s: u64,
    /// Has the client acknowledged the backend's answer?
    pub is_proven: bool,
    /// Opened while an older connection was closing.
    pub is_reopening: bool,
    /// Another was opened while it was closing.
    pub has_reopening: bool,
    /// Has its backend refused it, unknown to the client?
    pub is_refused: bool,
    /// How many backends have refused the client before this one.
    pub retries: u32,
    /// The sequence number of the backend's SYN-ACK; any, for UDP.
    pub answered: Option<u32>,
    /// Which sides have sent FIN.
    pub closed: [bool; 2],
    /// Which sides have sent FIN, without a packet of the other side since.
    short_timer: [bool; 2],
    /// Which sides have sent RST, without a packet of the other side since.
    reset: [bool; 2],
}

impl Connection {
    /// A half-open connection: the backend has not answered.
    pub fn new(protocol: Protocol, backend: usize, losses: u32, now_s: u64) -> Self {
        Self {
            protocol,
            backend,
            losses,
            seen_s: now_s,
            is_proven: false,
            is_reopening: false,
            has_reopening: false,
            is_refused: false,
            retries: 0,
            answered: None,
            closed: [false; 2],
            short_timer: [false; 2],
            reset: [false; 2],
        }
    }

    /// Has it been idle for longer than its timeout?
    pub fn is_idle(&self, now_s: u64) -> bool {
        let is_ending = self.closed == [true; 2] || self.short_timer != [false; 2];
        let timeout_s = match (self.is_proven, self.protocol) {
            (false, _) => UNPROVEN_S,
            (true, Protocol::Udp) => UDP_S,
            (true, Protocol::Tcp) if self.is_reset() => TCP_RESET_S,
            (true, Protocol::Tcp) if is_ending => TCP_ENDING_S,
            (true, Protocol::Tcp) => TCP_S,
        };
        now_s - self.seen_s > timeout_s
    }

    /// Has it been idle for longer than any connection may be?
    pub fn is_forgotten(&self, now_s: u64) -> bool {
        now_s - self.seen_s > if self.protocol == Protocol::Tcp { TCP_S } else { UDP_S }
    }

    /// Has the backend not answered yet?
    pub fn waits(&self) -> bool {
        !self.is_proven && self.answered.is_none()
    }

    /// How many backends have refused the client.
    pub fn refusals(&self) -> u32 {
        self.retries + u32::from(self.is_refused)
    }

    /// Does it count for its backend's maximum?
    pub fn is_counted(&self) -> bool {
        self.closed != [true; 2] && !self.is_reset() && !self.is_refused
    }

    fn is_reset(&self) -> bool {
        self.reset != [false; 2]
    }

    /// May a SYN open another one beside it?
    pub fn may_be_reopened(&self) -> bool {
        self.has_reopening || self.closed != [false; 2] || self.short_timer != [false; 2] || self.is_reset()
    }

    /// Does this segment prove that the client received the backend's answer?
    pub fn is_proven_by(&self, segment: Segment) -> bool {
        let Some(_) = self.answered else { return false };
        match (self.protocol, segment) {
            (Protocol::Udp, _) => true,
            (Protocol::Tcp, Segment::Ack(beyond)) => (1..=65_536).contains(&beyond),
            // Both acknowledge the SYN-ACK.
            (Protocol::Tcp, Segment::Data | Segment::Fin) => true,
            (Protocol::Tcp, Segment::Syn | Segment::Rst | Segment::OtherRst) => false,
        }
    }

    /// Returns whether this proved it.
    pub fn client_sends(&mut self, segment: Segment) -> bool {
        if self.is_proven {
            self.note_close(Side::Client, segment);
            return false;
        }
        self.is_proven = self.is_proven_by(segment);
        if self.is_proven {
            self.note_close(Side::Client, segment);
        }
        self.is_proven
    }

    /// A FIN or RST shortens the timeout, and the other side's next packet restores it; FINs are remembered. A RST
    /// overrides what one FIN did, and changes nothing once both sides have sent one.
    pub fn note_close(&mut self, side: Side, segment: Segment) {
        let is_client_syn = matches!((side, segment), (Side::Client, Segment::Syn));
        if self.protocol == Protocol::Udp || is_client_syn {
            return;
        }
        let (mine, other) = (side as usize, 1 - side as usize);
        match segment {
            Segment::Rst | Segment::OtherRst if self.closed == [true; 2] => {}
            Segment::Rst | Segment::OtherRst => (self.reset[mine], self.short_timer) = (true, [false; 2]),
            Segment::Fin => {
                if self.is_reset() {
                    (self.reset[other], self.short_timer[other]) = (false, false);
                }
                (self.closed[mine], self.short_timer[mine]) = (true, true);
                if self.closed == [true; 2] {
                    self.reset = [false; 2];
                }
            }
            Segment::Syn | Segment::Ack(_) | Segment::Data => {
                (self.reset[other], self.short_timer[other]) = (false, false);
            }
        }
    }

    /// The state that the program would record.
    pub fn state(&self) -> State {
        if !self.is_proven {
            let kind = if self.is_reopening { State::REOPENING } else { State::HALF_OPEN };
            let state = kind.after_retries(self.retries);
            return if self.is_refused { state.refused() } else { state };
        }
        let bits = [
            (self.has_reopening, State::SYN_WHILE_CLOSING),
            (self.closed[0], State::FIN_CLIENT),
            (self.closed[1], State::FIN_BACKEND),
            (self.short_timer[0] || self.reset[0], State::SHORT_CLIENT),
            (self.short_timer[1] || self.reset[1], State::SHORT_BACKEND),
            (self.is_reset(), State::RESET),
        ];
        State(
            bits.iter()
                .filter(|(is_set, _)| *is_set)
                .fold(State::ESTABLISHED.0, |state, (_, bit)| state | bit),
        )
    }
}
