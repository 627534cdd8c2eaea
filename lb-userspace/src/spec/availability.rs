//! Keys of a `[[service]]` about backends that fail and come up: when the service is ready, when health is ignored,
//! what becomes of the flows of a backend that goes down, and of a client that a backend refuses, and how fast a
//! backend that comes up gets flows.

use std::{fmt, time::Duration};

use lb_common::{limits::MAX_BACKENDS, net::Protocol};

use crate::{
    document::{
        mistakes::Report,
        table::{Given, Table},
        value,
    },
    named::named,
};

/// A backend that starts slowly gets a tenth of its weight at a time.
pub const SLOW_START_STEPS: u32 = 10;
const MAX_SLOW_START: Duration = Duration::from_hours(1);

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Availability {
    /// The service is ready while at least this many backends are available.
    pub quorum: u32,
    /// The health of a pool's backends is ignored while fewer of them are up. 0: never.
    pub panic_threshold: Percent,
    /// TCP: what becomes of a backend's flows when it goes down.
    pub on_down: OnDown,
    /// TCP: what a client gets if a backend refuses its connection.
    pub on_refused: OnRefused,
    /// A backend that comes up gets its weight in steps over this time.
    pub slow_start: Duration,
}

impl Default for Availability {
    fn default() -> Self {
        Self {
            quorum: 1,
            panic_threshold: Percent(0),
            on_down: OnDown::default(),
            on_refused: OnRefused::default(),
            slow_start: Duration::ZERO,
        }
    }
}

/// 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percent(pub u32);

impl Percent {
    /// Is this part of a whole less than this percentage?
    pub fn exceeds(self, part: u32, whole: u32) -> bool {
        u64::from(part) * 100 < u64::from(whole) * u64::from(self.0)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// What becomes of a backend's flows when it goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They stay, and continue if the backend still serves them.
    #[default]
    Keep,
    /// They end.
    Reset,
}

named!(OnDown { Keep = "keep", Reset = "reset", });

/// What a client gets if a backend refuses its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefused {
    /// Another backend, when it repeats its SYN.
    #[default]
    Retry,
    /// The refusal.
    Pass,
}

named!(OnRefused { Retry = "retry", Pass = "pass", });

/// The keys as written.
pub struct Written {
    quorum: Given<u32>,
    panic_threshold: Given<u32>,
    on_down: Given<OnDown>,
    on_refused: Given<OnRefused>,
    slow_start: Given<Duration>,
}

impl Written {
    pub fn read(table: &mut Table<'_>) -> Self {
        Self {
            quorum: table.optional("quorum", |value| value::integer(value, 1..=MAX_BACKENDS)),
            panic_threshold: table.optional("panic_threshold", |value| value::integer(value, 0..=100)),
            on_down: table.optional("on_down", |value| value::choice(value, "on_down", &[])),
            on_refused: table.optional("on_refused", |value| value::choice(value, "on_refused", &[])),
            slow_start: table
                .optional("slow_start", |value| value::duration(value, Duration::ZERO..=MAX_SLOW_START)),
        }
    }

    /// Nothing else ends a UDP flow, so those of a backend that is down cannot be kept.
    pub fn validate(&self, protocol: &Given<Protocol>, report: &Report<'_>) -> Availability {
        if protocol.or_if_absent(Protocol::Tcp) == Some(Protocol::Udp)
            && let Some(on_down) = self.on_down.good().filter(|it| it.value == OnDown::Keep)
        {
            report.add(
                on_down.span,
                "on_down `keep` is not allowed with protocol `udp`: UDP flows end when their backend goes down",
            );
        }
        let default = Availability::default();
        Availability {
            quorum: self.quorum.good().map_or(default.quorum, |it| it.value),
            panic_threshold: self
                .panic_threshold
                .good()
                .map_or(default.panic_threshold, |it| Percent(it.value)),
            on_down: self.on_down.good().map_or(default.on_down, |it| it.value),
            on_refused: self.on_refused.good().map_or(default.on_refused, |it| it.value),
            slow_start: self.slow_start.good().map_or(default.slow_start, |it| it.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_exceeds_only_smaller_parts() {
        for (threshold, part, whole, expected) in [
            (50, 1, 3, true),
            (50, 1, 2, false),
            (34, 1, 3, true),
            (33, 1, 3, false),
            (0, 0, 3, false),
            (100, 65_535, 65_536, true),
            (100, 3, 3, false),
            (100, 0, 0, false),
        ] {
            assert_eq!(Percent(threshold).exceeds(part, whole), expected, "{part} of {whole}, {threshold} %");
        }
    }
}
