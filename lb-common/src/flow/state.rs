//! The states of a flow, and how long it may be idle in each.

use crate::{clock::Ticks, net::Protocol};

/// The state of a record: a kind and, for established flows, how far they have been closed.
///
/// ```text
///            SYN / first datagram         proven
///  EMPTY ───────────▶ HALF_OPEN ───────────────▶ ESTABLISHED ──── FIN of one side ────▶ ESTABLISHED | SHORT_*
///    ▲                REOPENING  ─── proven ───▶   │  ▲  ▲  └───── RST of one side ─────▶ ESTABLISHED | RESET | SHORT_*
///    │                                             │  └──┴─────── the other side's next packet ────────┘
///    └──────────────── evicted, expired ───────────┴───────────── FIN of both: closed
/// ```
/// A handshake is proven when the client has acknowledged the backend's answer (conntrack: assured).
///
/// | state | meaning | idle timeout | source |
/// |---|---|---|---|
/// | `HALF_OPEN` | the client has not yet acknowledged the backend's answer | 120 s | RFC 4787 REQ-5 (UDP, 2 min); longer than the largest gap between two SYNs (RFC 6298, 2.4: 60 s) |
/// | either + `REFUSED` | half-open, and its backend has refused the client, whose next SYN gets another backend | 120 s | |
/// | `REOPENING` | half-open, and an older closing flow has the same addresses and ports | 120 s | RFC 9293, 3.6.1 |
/// | `ESTABLISHED` TCP | the handshake is proven | 7,440 s | RFC 5382 REQ-5 |
/// | `ESTABLISHED` UDP | the client sent another datagram after the backend's answer | 300 s | RFC 4787 REQ-5 |
/// | `ESTABLISHED` + `SHORT_*` | one side sent FIN and the other has sent nothing since | 240 s | RFC 5382 REQ-5, RFC 7857 2.2 |
/// | `ESTABLISHED` + `RESET` + `SHORT_*` | one side sent RST and the other has sent nothing but RST since | 10 s, may be evicted at once | Linux `nf_conntrack_tcp_timeout_close` |
/// | `ESTABLISHED` + `SYN_WHILE_CLOSING` | a SYN came while it was closing, so there may be a reopening flow | as without | RFC 9293, 3.6.1 |
/// | `ESTABLISHED` + both `FIN_*` (closed) | both sides sent FIN | 240 s, may be evicted at once | RFC 5382 REQ-5 |
/// | `RETIRED` | the reopening flow has replaced it, or it has expired; only its reply tuple is still reserved | 240 s, may be evicted at once | RFC 6191 |
/// | `ENDED` | the controller has ended it: by `xlb flow remove`, or because its backend was removed, put in maint, or went down (`on_down = "reset"`, UDP) | 240 s, may be evicted at once | |
///
/// A RST is not verified, because the table does not track windows, so, unlike two FINs, it is not final. A side that
/// received a valid RST is silent afterwards, or answers with RST. Any other packet from that side shows that its
/// connection is alive, and restores the flow.
///
/// A timeout ends a flow, within the resolution of `last_seen`, a quarter of a second. An expired flow is never revived,
/// even if its record is still there: a client packet is treated as the first of a new flow, and a backend packet is
/// passed to the host.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(pub u8);

impl State {
    /// Unused.
    pub const EMPTY: Self = Self(0);
    /// Reserved: its owner is writing it.
    pub const BUSY: Self = Self(1);
    /// The handshake is not proven.
    pub const HALF_OPEN: Self = Self(2);
    /// Half-open, with an older closing flow of the same client tuple, which it replaces when proven.
    pub const REOPENING: Self = Self(3);
    /// The handshake is proven.
    pub const ESTABLISHED: Self = Self(4);
    /// A SYN came while the flow was closing: until the flow ends, lookups must check for a reopening flow.
    pub const SYN_WHILE_CLOSING: u8 = 0x08;
    /// The client has sent FIN.
    pub const FIN_CLIENT: u8 = 0x10;
    /// The backend has sent FIN.
    pub const FIN_BACKEND: u8 = 0x20;
    /// The client's FIN (with [`Self::RESET`]: its RST) shortened the timer; the backend's next packet restores it.
    pub const SHORT_CLIENT: u8 = 0x40;
    /// The backend's FIN (with [`Self::RESET`]: its RST) shortened the timer; the client's next packet restores it.
    pub const SHORT_BACKEND: u8 = 0x80;
    /// An established flow was reset by the sides whose `SHORT_*` is set (at least one). Never set on a closed flow.
    pub const RESET: u8 = 0x02;

    /// Replaced by a reopening flow, or expired. The record is not live, but its reply tuple stays reserved until the record is
    /// evicted: the backend may be in TIME-WAIT with that tuple, and would answer another client's SYN on it with a
    /// challenge ACK (RFC 5961, 4.2). Counts as closed.
    pub const RETIRED: Self = Self(5 | Self::FIN_CLIENT | Self::FIN_BACKEND);

    /// Ended by the controller. The record is not live, but its reply tuple stays reserved until the record is evicted:
    /// the backend may still use it, and is then told that the flow has ended. Counts as closed.
    pub const ENDED: Self = Self(7 | Self::FIN_CLIENT | Self::FIN_BACKEND);

    /// A half-open flow was refused by its backend, and waits for the client's next SYN, which gets another backend.
    pub const REFUSED: u8 = 0x08;
    const RETRIES_AT: u32 = 6;
    const KIND: u8 = 0x07;
    /// Kinds of live records, one bit each.
    const LIVE: u8 = 1 << Self::HALF_OPEN.0
        | 1 << Self::REOPENING.0
        | 1 << Self::ESTABLISHED.0
        | 1 << (Self::ESTABLISHED.0 | Self::RESET);

    /// Is the record live, so that packets match its flow?
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        Self::LIVE >> (self.0 & Self::KIND) & 1 != 0
    }

    /// Does the record hold a reply tuple, and so an entry in the reply index?
    #[inline(always)]
    pub const fn holds_tuple(self) -> bool {
        self.0 & Self::KIND >= Self::HALF_OPEN.0
    }

    /// Is the handshake not yet proven?
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        self.is_kind(Self::HALF_OPEN) || self.is_kind(Self::REOPENING)
    }

    /// Half-open, with a closing flow of the same client tuple?
    #[inline(always)]
    pub const fn is_reopening(self) -> bool {
        self.is_kind(Self::REOPENING)
    }

    /// Can a packet of the client belong to this record only? Not while there may be a reopening flow beside a closing one.
    #[inline(always)]
    pub const fn is_alone(self) -> bool {
        self.0 == Self::ESTABLISHED.0 || self.is_kind(Self::HALF_OPEN)
    }

    #[inline(always)]
    const fn is_kind(self, kind: Self) -> bool {
        self.0 & Self::KIND == kind.0
    }

    /// Half-open, and refused by its backend?
    #[inline(always)]
    pub const fn is_refused(self) -> bool {
        self.is_half_open() && self.0 & Self::REFUSED != 0
    }

    /// A half-open state after a refusal.
    #[inline(always)]
    #[must_use]
    pub const fn refused(self) -> Self {
        Self(self.0 | Self::REFUSED)
    }

    /// A half-open state without a refusal.
    #[inline(always)]
    #[must_use]
    pub const fn unrefused(self) -> Self {
        Self(self.0 & !Self::REFUSED)
    }

    /// How many backends have refused the client of this half-open flow before its own.
    #[inline(always)]
    pub const fn retries(self) -> u32 {
        self.0 as u32 >> Self::RETRIES_AT
    }

    /// A half-open state of a flow whose client this many backends have refused.
    #[inline(always)]
    #[must_use]
    pub const fn after_retries(self, retries: u32) -> Self {
        Self(self.0 | (retries << Self::RETRIES_AT) as u8)
    }

    /// Is the handshake proven, however far the flow has been closed since?
    #[inline(always)]
    pub const fn is_established(self) -> bool {
        self.0 & Self::KIND & !Self::RESET == Self::ESTABLISHED.0
    }

    /// Has one side sent RST, and the other nothing but RST since?
    #[inline(always)]
    pub const fn is_reset(self) -> bool {
        self.0 & Self::KIND == Self::ESTABLISHED.0 | Self::RESET
    }

    /// Does the flow count for the [load](crate::backend::Load) of its backend? A flow that was closed, reset or refused does
    /// not.
    #[inline(always)]
    pub const fn is_counted(self) -> bool {
        self.is_live() && !self.is_closed() && !self.is_reset() && !self.is_refused()
    }

    /// Do the other nodes of a group know the flow? They do while its handshake is proven, and it is neither closed nor reset.
    #[inline(always)]
    pub const fn is_shared(self) -> bool {
        self.is_established() && self.is_counted()
    }

    /// Has one side begun to close, or had it done so when a SYN arrived?
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        self.is_established() && self.0 & !Self::KIND != 0
    }

    /// Have both sides sent FIN?
    #[inline(always)]
    pub const fn is_closed(self) -> bool {
        let both = Self::FIN_CLIENT | Self::FIN_BACKEND;
        self.0 & both == both
    }

    /// How long the flow may be idle.
    #[inline(always)]
    pub const fn timeout(self, protocol: u8) -> Ticks {
        if self.is_half_open() {
            return Ticks::from_seconds(120);
        }
        if protocol == Protocol::Udp as u8 {
            return Ticks::from_seconds(300);
        }
        if self.is_closed() || self.0 & (Self::SHORT_CLIENT | Self::SHORT_BACKEND) != 0 {
            return if self.is_reset() { Ticks::from_seconds(10) } else { Ticks::from_seconds(240) };
        }
        Ticks::from_seconds(7440)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_records_are_distinct() {
        let reset = State(State::ESTABLISHED.0 | State::RESET | State::SHORT_CLIENT);
        let cases = [
            // state, [live, holds its tuple, half-open, established, reset, counted]
            (State::EMPTY, [false, false, false, false, false, false]),
            (State::BUSY, [false, false, false, false, false, false]),
            (State::HALF_OPEN, [true, true, true, false, false, true]),
            (State::REOPENING, [true, true, true, false, false, true]),
            (State::ESTABLISHED, [true, true, false, true, false, true]),
            (reset, [true, true, false, true, true, false]),
            (
                State(State::HALF_OPEN.0 | State::REFUSED).after_retries(3),
                [true, true, true, false, false, false],
            ),
            (State(State::REOPENING.0).after_retries(2), [true, true, true, false, false, true]),
            (State::RETIRED, [false, true, false, false, false, false]),
            (State::ENDED, [false, true, false, false, false, false]),
        ];
        for (state, wanted) in cases {
            let found = [
                state.is_live(),
                state.holds_tuple(),
                state.is_half_open(),
                state.is_established(),
                state.is_reset(),
                state.is_counted(),
            ];

            assert_eq!(found, wanted, "{state:x?}");
        }
    }

    #[test]
    fn only_two_fins_close_and_each_fin_or_rst_shortens_the_timeout() {
        let live = State::ESTABLISHED;
        let reset = State(live.0 | State::RESET | State::SHORT_CLIENT);
        let one = State(live.0 | State::FIN_CLIENT | State::SHORT_CLIENT);
        let both = State(live.0 | State::FIN_CLIENT | State::FIN_BACKEND);

        assert!(live.is_shared() && one.is_shared() && !both.is_shared() && !reset.is_shared());
        assert!(!State::HALF_OPEN.is_shared() && !State::RETIRED.is_shared() && !State::ENDED.is_shared());
        assert!(!live.is_closing() && one.is_closing() && !one.is_closed() && both.is_closed());
        assert_eq!(live.timeout(6), Ticks::from_seconds(7440));
        assert_eq!(one.timeout(6), Ticks::from_seconds(240));
        assert!(reset.is_closing() && !reset.is_closed());
        assert_eq!(reset.timeout(6), Ticks::from_seconds(10));
        assert_eq!(live.timeout(17), Ticks::from_seconds(300));
    }
}
