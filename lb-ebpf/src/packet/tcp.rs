//! TCP for the flow table: segments, and the states of an established flow.

use lb_common::flow::{Proof, State};

/// Flags of the TCP header's 14th byte (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
/// Synchronize.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// The acknowledgement number is valid.
pub const ACK: u8 = 0x10;

/// How far beyond the SYN-ACK a first acknowledgement may be: one unscaled window. It may cover data sent with TFO, or
/// data that arrived after a lost bare ACK.
const PROOF_WINDOW: u32 = 65_536;

/// The fields of one segment. All zero for UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// [`FIN`], [`SYN`], [`RST`], [`ACK`] and others.
    pub flags: u8,
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgement number.
    pub acknowledgement: u32,
}

impl Segment {
    /// Is it a SYN? ECE and CWR may be set (RFC 3168, 6.1.1).
    #[inline(always)]
    pub const fn is_syn(self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// Is it a SYN-ACK?
    #[inline(always)]
    pub const fn is_syn_ack(self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN | ACK
    }

    /// Does it belong to a connection that both sides have begun? A RST does not count: it ends one, or answers what belongs to
    /// none.
    #[inline(always)]
    pub const fn goes_on(self) -> bool {
        self.flags & (SYN | ACK | RST) == ACK
    }

    /// Does it close one or both directions?
    #[inline(always)]
    pub const fn is_fin_or_rst(self) -> bool {
        self.flags & (RST | FIN) != 0
    }

    /// Is it a client's RST that rejects an ACK of an older connection (RFC 9293, 3.10.7.3)? A backend in TIME-WAIT answers
    /// a SYN with such an ACK, and accepts the next SYN only after this RST.
    #[inline(always)]
    pub const fn rejects_ack(self) -> bool {
        self.flags & (RST | ACK) == RST
    }

    /// Does it prove that the client received the backend's SYN-ACK?
    #[inline(always)]
    pub const fn proves(self, proof: Proof) -> bool {
        // In any segment, because the bare ACK may be lost. RST proves nothing.
        self.flags & (SYN | RST) == 0 && self.acknowledges(proof.sequence())
    }

    /// Does it acknowledge a SYN with this sequence number? From isn + 1 to isn + 65536.
    #[inline(always)]
    pub const fn acknowledges(self, syn: u32) -> bool {
        self.flags & ACK != 0 && self.acknowledgement.wrapping_sub(syn).wrapping_sub(1) < PROOF_WINDOW
    }
}

/// The side of a flow that sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A request.
    Client,
    /// A reply.
    Backend,
}

/// The state of an established flow after a segment of one side.
///
/// A FIN or RST only shortens the timer, because it may be forged; the other side's next packet restores it. FINs are
/// remembered: once both sides have sent one, the flow is closed, and only a new SYN-ACK ([`restarted`]) opens it again.
#[inline(always)]
pub const fn after(state: State, side: Side, segment: Segment) -> State {
    let (fin, short, other_short) = match side {
        Side::Client => (State::FIN_CLIENT, State::SHORT_CLIENT, State::SHORT_BACKEND),
        Side::Backend => (State::FIN_BACKEND, State::SHORT_BACKEND, State::SHORT_CLIENT),
    };
    let mut bits = state.0;
    if segment.flags & RST != 0 {
        if state.is_closed() {
            return state;
        }
        if !state.is_reset() {
            bits &= !other_short; // It was set by a FIN; with RESET it would mean a RST.
        }
        return State(bits | State::RESET | short);
    }
    let is_fin = segment.flags & FIN != 0;
    if state.is_reset() {
        // This side's connection is alive: the other's RST was forged, or has not arrived yet. A FIN shows that, too.
        bits &= !other_short;
        if bits & short == 0 {
            bits &= !State::RESET;
        }
    } else if !is_fin {
        bits &= !other_short;
    }
    if is_fin {
        bits |= fin | short;
        if State(bits).is_closed() {
            bits &= !State::RESET;
        }
    }
    State(bits)
}

/// A closing flow whose backend accepted a SYN: its FINs and RSTs belong to the previous connection. The timer stays short
/// until the client sends a packet.
#[inline(always)]
pub const fn restarted(state: State) -> State {
    State(State::ESTABLISHED.0 | State::SHORT_BACKEND | state.0 & State::SYN_WHILE_CLOSING)
}

/// A half-open flow that its backend refused: closed, so new flows may evict its record and reply tuple.
pub const REFUSED: State = State(State::ESTABLISHED.0 | State::FIN_CLIENT | State::FIN_BACKEND);

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: State = State::ESTABLISHED;

    fn segment(flags: u8) -> Segment {
        Segment { flags, ..Segment::default() }
    }

    #[test]
    fn syn_means_syn_alone_but_for_ecn() {
        assert!(segment(SYN).is_syn() && segment(SYN | 0xc0).is_syn());
        for flags in [SYN | ACK, SYN | FIN, SYN | RST, ACK, 0] {
            assert!(!segment(flags).is_syn(), "{flags:#x}");
        }
    }

    #[test]
    fn the_handshake_is_proven_within_one_window_of_the_syn_ack() {
        let isn = u32::MAX - 10;
        let proof = Proof::new(1, isn);
        let cases = [(0, false), (1, true), (65_536, true), (65_537, false), (u32::MAX, false)];
        for (beyond, proven) in cases {
            let ack = Segment { flags: ACK, sequence: 0, acknowledgement: isn.wrapping_add(beyond) };

            assert_eq!(ack.proves(proof), proven, "isn + {beyond}");
            assert!(!Segment { flags: ACK | RST, ..ack }.proves(proof), "a reset proves nothing");
        }
    }

    #[test]
    fn an_orderly_close_ends_closed_whichever_side_begins() {
        for (first, second) in [(Side::Client, Side::Backend), (Side::Backend, Side::Client)] {
            let half_closed = after(LIVE, first, segment(FIN | ACK));
            let acknowledged = after(half_closed, second, segment(ACK));
            let closed = after(acknowledged, second, segment(FIN | ACK));
            let last = after(closed, first, segment(ACK));

            assert!(
                half_closed.is_closing()
                    && half_closed.timeout(6).as_duration() < LIVE.timeout(6).as_duration()
            );
            assert_eq!(
                acknowledged.timeout(6),
                LIVE.timeout(6),
                "the other side lives: a long half-close is kept"
            );
            assert!(closed.is_closed() && last.is_closed());
            assert!(last.timeout(6).as_duration() < LIVE.timeout(6).as_duration());
        }
    }

    #[test]
    fn a_forged_reset_is_undone_by_the_other_side() {
        for (forged, other) in [(Side::Client, Side::Backend), (Side::Backend, Side::Client)] {
            let reset = after(LIVE, forged, segment(RST));

            assert!(reset.is_reset() && reset.is_closing() && !reset.is_closed());
            assert_eq!(after(reset, forged, segment(ACK)), reset, "its own side proves nothing");
            assert_eq!(after(reset, forged, segment(RST)), reset);
            assert_eq!(after(reset, other, segment(ACK)), LIVE);
            assert_eq!(after(reset, other, segment(FIN | ACK)), after(LIVE, other, segment(FIN | ACK)));
        }
    }

    #[test]
    fn a_reset_of_each_side_is_undone_by_the_other_one() {
        let both = after(after(LIVE, Side::Client, segment(RST)), Side::Backend, segment(RST | ACK));

        let client_lives = after(both, Side::Client, segment(ACK));

        assert!(both.is_reset() && client_lives.is_reset());
        assert_eq!(after(client_lives, Side::Client, segment(ACK)), client_lives);
        assert_eq!(after(client_lives, Side::Backend, segment(ACK)), LIVE);
    }

    #[test]
    fn a_reset_ends_a_half_closed_flow_and_not_a_closed_one() {
        let half_closed = after(LIVE, Side::Client, segment(FIN | ACK));
        let closed = after(half_closed, Side::Backend, segment(FIN | ACK));

        for side in [Side::Client, Side::Backend] {
            let reset = after(half_closed, side, segment(RST));

            assert!(
                reset.is_reset() && reset.timeout(6).as_duration() < half_closed.timeout(6).as_duration()
            );
            assert_eq!(after(closed, side, segment(RST)), closed);
        }
    }

    #[test]
    fn two_fins_close_a_flow_that_was_reset() {
        let half_closed = after(LIVE, Side::Backend, segment(FIN | ACK));
        let reset = after(half_closed, Side::Client, segment(RST));

        let closed = after(reset, Side::Client, segment(FIN | ACK));

        assert!(closed.is_closed() && closed.is_established() && !closed.is_reset());
    }
}
