//! How old the data of a database server may be. The data of a replica that receives nothing ages.

use std::time::{Duration, Instant};

use crate::probe::{Role, RoleReport};

#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// When it was last known how far the server was behind, and how far that was.
    last: Option<(Instant, Duration)>,
    now: Now,
}

#[derive(Clone, Copy, Debug, Default)]
enum Now {
    #[default]
    Unknown,
    Fixed,
    Growing,
}

impl Lag {
    pub fn learn(&mut self, report: &RoleReport, now: Instant) {
        let lag = if report.role == Role::Primary { Some(Duration::ZERO) } else { report.lag };
        let is_fresh = report.role == Role::Primary || report.is_following;
        self.now = match (is_fresh, lag) {
            (true, Some(_)) => Now::Fixed,
            (true, None) => Now::Unknown,
            (false, _) => Now::Growing,
        };
        if let Some(lag) = lag {
            self.last = Some((now, lag));
        }
    }

    /// `None`: unknown.
    pub fn at(&self, now: Instant) -> Option<Duration> {
        let (at, lag) = self.last?;
        match self.now {
            Now::Unknown => None,
            Now::Fixed => Some(lag),
            Now::Growing => Some(now.saturating_duration_since(at) + lag),
        }
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

    #[test]
    fn a_lag_that_is_unknown_for_a_while_grows_from_when_it_was_known() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        let second = Duration::from_secs(1);
        lag.learn(&replica(Some(second)), start);
        lag.learn(&RoleReport { is_following: true, ..replica(None) }, start + second);
        assert_eq!(lag.at(start + second), None);

        lag.learn(&replica(None), start + second * 2);

        assert_eq!(lag.at(start + second * 9), Some(second * 10));
    }

    /// Redis says since when its link is down.
    #[test]
    fn a_server_that_receives_nothing_may_say_itself_how_old_its_data_is() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        let minute = Duration::from_secs(60);

        lag.learn(&RoleReport { is_following: false, ..replica(Some(minute)) }, start);

        assert_eq!(lag.at(start + minute), Some(minute * 2));
    }

    /// `lag`: `None` if it receives nothing.
    fn replica(lag: Option<Duration>) -> RoleReport {
        let mark = Mark::Postgres { system: 7, timeline: Some(1), position: 0 };
        RoleReport { role: Role::Replica, is_following: lag.is_some(), lag, mark }
    }
}
