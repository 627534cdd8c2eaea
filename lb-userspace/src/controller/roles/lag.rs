//! How old the data of a database server may be. The data of a replica that receives nothing ages.

use std::time::{Duration, Instant};

use crate::probe::{Role, RoleReport};

#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// When it was last primary or received from its primary, and how far it was behind then.
    last: Option<(Instant, Duration)>,
    /// Has it received nothing since?
    is_growing: bool,
}

impl Lag {
    pub fn learn(&mut self, report: &RoleReport, now: Instant) {
        let is_fresh = report.role == Role::Primary || report.is_following;
        self.is_growing = !is_fresh;
        if is_fresh {
            let lag = if report.role == Role::Primary { Some(Duration::ZERO) } else { report.lag };
            self.last = lag.map(|lag| (now, lag));
        }
    }

    /// `None`: unknown.
    pub fn at(&self, now: Instant) -> Option<Duration> {
        let (at, lag) = self.last?;
        Some(if self.is_growing { now.saturating_duration_since(at) + lag } else { lag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Mark;

    #[test]
    fn the_lag_of_a_replica_that_receives_nothing_grows() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(lag.at(start), None);
        lag.learn(&replica(Some(second)), start);
        assert_eq!(lag.at(start + second), Some(second));

        lag.learn(&replica(None), start + second);

        assert_eq!(lag.at(start + second * 4), Some(second * 5));
    }

    #[test]
    fn the_data_of_a_former_primary_ages_from_then_on() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.learn(&RoleReport { role: Role::Primary, ..replica(None) }, start);
        assert_eq!(lag.at(start), Some(Duration::ZERO));

        lag.learn(&replica(None), start);

        assert_eq!(lag.at(start + Duration::from_secs(9)), Some(Duration::from_secs(9)));
    }

    /// `lag`: `None` if it receives nothing.
    fn replica(lag: Option<Duration>) -> RoleReport {
        let mark = Mark::Postgres { system: 7, timeline: Some(1), position: 0 };
        RoleReport { role: Role::Replica, is_following: lag.is_some(), lag, mark }
    }
}
