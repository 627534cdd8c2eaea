//! One connection of the reference.

use lb_common::{flow::State, net::Protocol};

use super::Word;

/// Idle times in seconds.
const UNPROVEN_S: u64 = 120; // RFC 4787 REQ-5, and longer than between two SYNs
const TCP_S: u64 = 7440; // RFC 5382 REQ-5
const TCP_ENDING_S: u64 = 240; // RFC 5382 REQ-5
const TCP_RESET_S: u64 = 10; // Linux: nf_conntrack_tcp_timeout_close
const UDP_S: u64 = 300; // RFC 4787 REQ-5

/// Which end speaks.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// First in pairs by side.
    Client = 0,
    /// Second in pairs by side.
    Backend = 1,
}

/// A client's port, one of its backends, and what they have said to each other.
#[derive(Debug)]
pub struct Connection {
    protocol: Protocol,
    /// Its place among the model's backends.
    pub backend: usize,
    /// How often the backend had lost its flows when this one began.
    pub losses: u32,
    /// When either side was last heard, in seconds since the row began.
    pub seen_s: u64,
    /// Has the client said that it heard the backend's answer?
    pub is_proven: bool,
    /// It began beside an older connection.
    pub is_challenger: bool,
    /// Another has begun beside it.
    pub is_challenged: bool,
    /// The sequence number of the backend's SYN-ACK; any, for UDP.
    pub answered: Option<u32>,
    /// Which sides have sent FIN.
    pub closed: [bool; 2],
    /// Which sides have sent FIN, and have heard nothing from the other side since.
    hurried: [bool; 2],
    /// Which sides have sent RST, and were not contradicted.
    reset: [bool; 2],
}

impl Connection {
    /// One that has just begun: the backend has not answered.
    pub fn new(protocol: Protocol, backend: usize, losses: u32, now_s: u64) -> Self {
        Self {
            protocol,
            backend,
            losses,
            seen_s: now_s,
            is_proven: false,
            is_challenger: false,
            is_challenged: false,
            answered: None,
            closed: [false; 2],
            hurried: [false; 2],
            reset: [false; 2],
        }
    }

    /// Has it been silent for longer than its timeout?
    pub fn is_idle(&self, now_s: u64) -> bool {
        let is_ending = self.closed == [true; 2] || self.hurried != [false; 2];
        let timeout_s = match (self.is_proven, self.protocol) {
            (false, _) => UNPROVEN_S,
            (true, Protocol::Udp) => UDP_S,
            (true, Protocol::Tcp) if self.is_reset() => TCP_RESET_S,
            (true, Protocol::Tcp) if is_ending => TCP_ENDING_S,
            (true, Protocol::Tcp) => TCP_S,
        };
        now_s - self.seen_s > timeout_s
    }

    fn is_reset(&self) -> bool {
        self.reset != [false; 2]
    }

    /// May a SYN begin another beside it?
    pub fn may_be_challenged(&self) -> bool {
        self.is_challenged || self.closed != [false; 2] || self.hurried != [false; 2] || self.is_reset()
    }

    /// Does a client say by this that it heard the backend's answer?
    pub fn is_proven_by(&self, word: Word) -> bool {
        let Some(_) = self.answered else { return false };
        match (self.protocol, word) {
            (Protocol::Udp, _) => true,
            (Protocol::Tcp, Word::Ack(beyond)) => (1..=65_536).contains(&beyond),
            // Both acknowledge the SYN-ACK.
            (Protocol::Tcp, Word::Data | Word::Fin) => true,
            (Protocol::Tcp, Word::Syn | Word::Rst) => false,
        }
    }

    /// Returns whether this proved it.
    pub fn hear_client(&mut self, word: Word) -> bool {
        if self.is_proven {
            self.say_goodbye(Side::Client, word);
            return false;
        }
        self.is_proven = self.is_proven_by(word);
        if self.is_proven {
            self.say_goodbye(Side::Client, word);
        }
        self.is_proven
    }

    /// A FIN or RST hurries the end, and the other side's next packet takes that back; FINs are remembered. A RST
    /// overrides what one FIN did, and changes nothing once both sides have sent one.
    pub fn say_goodbye(&mut self, side: Side, word: Word) {
        let is_client_syn = matches!((side, word), (Side::Client, Word::Syn));
        if self.protocol == Protocol::Udp || is_client_syn {
            return;
        }
        let (mine, other) = (side as usize, 1 - side as usize);
        match word {
            Word::Rst if self.closed == [true; 2] => {}
            Word::Rst => (self.reset[mine], self.hurried) = (true, [false; 2]),
            Word::Fin => {
                if self.is_reset() {
                    (self.reset[other], self.hurried[other]) = (false, false);
                }
                (self.closed[mine], self.hurried[mine]) = (true, true);
                if self.closed == [true; 2] {
                    self.reset = [false; 2];
                }
            }
            Word::Syn | Word::Ack(_) | Word::Data => {
                (self.reset[other], self.hurried[other]) = (false, false);
            }
        }
    }

    /// As the program would note it down.
    pub fn state(&self) -> State {
        if !self.is_proven {
            return if self.is_challenger { State::REOPENING } else { State::HALF_OPEN };
        }
        let bits = [
            (self.is_challenged, State::SYN_WHILE_CLOSING),
            (self.closed[0], State::FIN_CLIENT),
            (self.closed[1], State::FIN_BACKEND),
            (self.hurried[0] || self.reset[0], State::SHORT_CLIENT),
            (self.hurried[1] || self.reset[1], State::SHORT_BACKEND),
            (self.is_reset(), State::RESET),
        ];
        State(
            bits.iter()
                .filter(|(is_set, _)| *is_set)
                .fold(State::ESTABLISHED.0, |state, (_, bit)| state | bit),
        )
    }
}
