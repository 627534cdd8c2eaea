//! What a PostgreSQL server answers about its role. No I/O.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{Mark, Role, RoleReport},
    caught_up::CaughtUp,
};

/// One row. `pg_walfile_name` tells the timeline of a primary at once after a promotion; `pg_control_checkpoint` does so only
/// after the next checkpoint. The role is read once, so that all columns are of the same one.
pub const QUERY: &str = "select s.is_replica, c.system_identifier, \
    case when s.is_replica then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, \
    case when not s.is_replica then substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end, \
    w.pid is not null, w.status, w.received_tli, \
    extract(epoch from clock_timestamp() - w.last_msg_receipt_time), \
    extract(epoch from current_setting('wal_receiver_timeout')::interval), \
    pg_last_wal_receive_lsn(), \
    extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) \
    from (select pg_is_in_recovery() as is_replica) s cross join pg_control_system() c \
    left join pg_stat_wal_receiver w on s.is_replica";

/// The default of `wal_receiver_timeout`, if it is off.
const WAL_RECEIVER_TIMEOUT: Duration = Duration::from_secs(60);

/// The answer to [`QUERY`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub report: RoleReport,
    /// The user may not see what the replica receives.
    pub is_blind: bool,
}

/// What a replica knows of its primary.
struct Receiver {
    is_streaming: bool,
    timeline: Option<u32>,
    silent_for: Option<Duration>,
    timeout: Option<Duration>,
    received: u64,
    /// Age of the last transaction that was replayed.
    replayed_ago: Option<Duration>,
}

impl State {
    /// `None`: these are not the columns of [`QUERY`], which was sent at this time.
    pub fn read(columns: &[Option<&str>], caught_up: &mut CaughtUp, asked: Instant) -> Option<Self> {
        let [is_replica, system, position, timeline, receives, status, receiver @ ..] = columns else { return None };
        let [received_timeline, silent_for, timeout, received, replayed_ago] = receiver else { return None };
        // The type of the column is signed.
        let system = system.as_deref()?.parse::<i64>().ok()?.cast_unsigned();
        let position = optional(*position, lsn)?.unwrap_or(0);
        if !boolean((*is_replica)?)? {
            let timeline = Some(u32::from_str_radix((*timeline)?, 16).ok()?);
            let mark = Mark::Postgres { system, timeline, position };
            let report = RoleReport { role: Role::Primary, is_following: false, lag: None, mark };
            return Some(Self { report, is_blind: false });
        }
        let receiver = Receiver {
            is_streaming: *status == Some("streaming"),
            timeline: optional(*received_timeline, |text| text.parse().ok())?,
            silent_for: optional(*silent_for, seconds)?,
            timeout: optional(*timeout, seconds)?.filter(|timeout| !timeout.is_zero()),
            received: optional(*received, lsn)?.unwrap_or(0),
            replayed_ago: optional(*replayed_ago, seconds)?,
        };
        let is_blind = boolean((*receives)?)? && status.is_none();
        Some(Self { report: receiver.report(system, position, caught_up, asked), is_blind })
    }
}

impl Receiver {
    fn report(&self, system: u64, position: u64, caught_up: &mut CaughtUp, asked: Instant) -> RoleReport {
        let mark = Mark::Postgres { system, timeline: self.timeline.filter(|_| self.is_streaming), position };
        let lag = if self.is_streaming { self.lag(&mark, caught_up, asked) } else { None };
        RoleReport { role: Role::Replica, is_following: self.is_streaming, lag, mark }
    }

    /// Without writes, the age of the last transaction grows although nothing is missing.
    fn lag(&self, mark: &Mark, caught_up: &mut CaughtUp, asked: Instant) -> Option<Duration> {
        let is_heard = self.silent_for.is_some_and(|it| it < self.timeout.unwrap_or(WAL_RECEIVER_TIMEOUT));
        if !is_heard {
            return self.replayed_ago;
        }
        // A replica that was restarted receives from the beginning of a segment, which is before what it has replayed.
        if Some(self.received) <= mark.position() {
            caught_up.seen(mark, asked);
            return Some(Duration::ZERO);
        }
        // What is missing was written after both.
        self.replayed_ago.into_iter().chain(caught_up.ago(mark, asked)).min()
    }
}

/// NULL, or a value that must be readable.
fn optional<T>(text: Option<&str>, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    text.map_or(Some(None), |text| read(text).map(Some))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}

/// `16/B374D848`: the two halves of a position.
fn lsn(text: &str) -> Option<u64> {
    let half = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
    let (high, low) = text.split_once('/')?;
    Some(half(high)? << 32 | half(low)?)
}

/// The clocks of two servers may differ, so that a time is before another one that it must follow.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: usize = 11;

    fn replica() -> [Option<&'static str>; COLUMNS] {
        [
            Some("t"), Some("-7426"), Some("0/3000148"), None, Some("t"), Some("streaming"), Some("3"), Some("1.5"),
            Some("60.000000"), Some("0/3000148"), Some("86400.25"),
        ]
    }

    /// The first answer of a server.
    fn read(columns: &[Option<&str>]) -> Option<State> {
        State::read(columns, &mut CaughtUp::default(), Instant::now())
    }

    fn lag_of(columns: [Option<&str>; COLUMNS]) -> (bool, Option<Duration>) {
        let report = read(&columns).unwrap().report;
        (report.is_following, report.lag)
    }

    #[test]
    fn a_primary_has_the_timeline_of_its_wal() {
        let mut columns = [None; COLUMNS];
        columns[..5].copy_from_slice(&[Some("f"), Some("7426"), Some("16/B374D848"), Some("0000000A"), Some("f")]);

        let state = read(&columns).unwrap();

        assert_eq!(state.report.mark, Mark::Postgres { system: 7426, timeline: Some(10), position: 0x16_B374_D848 });
        assert_eq!(state.report.to_string(), "primary, timeline 10, 16/B374D848");
    }

    #[test]
    fn an_idle_replica_has_no_lag() {
        let state = read(&replica()).unwrap();

        assert_eq!((state.report.is_following, state.report.lag), (true, Some(Duration::ZERO)));
        assert_eq!(state.report.to_string(), "replica, 0s behind, timeline 3, 0/3000148");
    }

    #[test]
    fn a_replica_that_replays_or_hears_nothing_is_as_old_as_its_last_transaction() {
        let age = Duration::from_millis(86_400_250);
        for (column, value, expected) in [
            (9, "0/3000150", age),
            (9, "0/2000000", Duration::ZERO),
            (7, "60.1", age),
            (7, "-0.1", Duration::ZERO),
            (8, "1.000000", age),
            (8, "0.000000", Duration::ZERO),
        ] {
            let mut columns = replica();
            columns[column] = Some(value);

            assert_eq!(lag_of(columns), (true, Some(expected)), "column {column}: {value}");
        }
    }

    /// One answer after the other: received, age of the last transaction, and the lag.
    fn assert_lags(answers: &[(u64, &'static str, &'static str, Option<f64>)]) {
        let (start, mut caught_up) = (Instant::now(), CaughtUp::default());
        for &(second, received, replayed_ago, expected) in answers {
            let mut columns = replica();
            (columns[9], columns[10]) = (Some(received), Some(replayed_ago));
            let asked = start + Duration::from_secs(second);

            let lag = State::read(&columns, &mut caught_up, asked).unwrap().report.lag;

            assert_eq!(lag, expected.map(Duration::from_secs_f64), "in second {second}");
        }
    }

    #[test]
    fn idle_time_before_a_write_is_no_lag() {
        assert_lags(&[
            (0, "0/3000148", "820", Some(0.0)),
            (840, "0/3000148", "1660", Some(0.0)),
            (842, "0/3000200", "1662", Some(2.0)),
            (844, "0/3000200", "1664", Some(4.0)),
        ]);
    }

    #[test]
    fn a_replica_that_never_catches_up_is_as_old_as_its_last_transaction() {
        assert_lags(&[
            (0, "0/3000148", "0.5", Some(0.0)),
            (10, "0/3000200", "10.5", Some(10.0)),
            (600, "0/3000300", "30", Some(30.0)),
            (602, "0/3000400", "30.5", Some(30.5)),
        ]);
    }

    #[test]
    fn a_first_answer_knows_only_the_age_of_the_last_transaction() {
        assert_lags(&[(0, "0/3000200", "1662", Some(1662.0)), (2, "0/3000148", "1664", Some(0.0))]);
    }

    #[test]
    fn what_was_seen_of_another_history_or_a_newer_copy_does_not_count() {
        let mut behind = replica();
        behind[9] = Some("0/4000000");
        for (column, value, is_known) in [
            (2, "0/3000148", true),
            (2, "0/3000149", true),
            (2, "0/3000147", false),
            (1, "7427", false),
            (6, "4", false),
            (7, "60", false),
        ] {
            let (start, mut caught_up) = (Instant::now(), CaughtUp::default());
            State::read(&replica(), &mut caught_up, start).unwrap();
            let mut columns = behind;
            columns[column] = Some(value);

            let state = State::read(&columns, &mut caught_up, start + Duration::from_secs(2)).unwrap();

            let expected = if is_known { Duration::from_secs(2) } else { Duration::from_millis(86_400_250) };
            assert_eq!(state.report.lag, Some(expected), "column {column}: {value}");
        }
    }

    #[test]
    fn a_replica_without_a_stream_follows_no_primary() {
        let mut waiting = replica();
        waiting[5] = Some("waiting");
        let mut alone = replica();
        alone[4..8].copy_from_slice(&[Some("f"), None, None, None]);
        let mut blind = replica();
        blind[5..8].copy_from_slice(&[None, None, None]);

        for (columns, is_blind) in [(waiting, false), (alone, false), (blind, true)] {
            let state = read(&columns).unwrap();

            assert_eq!((lag_of(columns), state.is_blind), ((false, None), is_blind), "{columns:?}");
            assert_eq!(state.report.mark.term(), None);
        }
    }

    #[test]
    fn a_value_that_is_none_of_its_column_is_refused() {
        for (column, wrong) in [
            (0, "true"), (1, "x"), (2, "3000148"), (2, "0/300014800"), (4, ""), (6, "-1"), (7, "NaN!"), (8, "inf"),
            (9, "0/g"), (10, "1s"),
        ] {
            let mut columns = replica();
            columns[column] = Some(wrong);

            assert_eq!(read(&columns), None, "column {column}: {wrong}");
        }
        assert_eq!(read(&replica()[1..]), None);
        assert_eq!(read(&[replica().as_slice(), &[None]].concat()), None);
    }

    proptest! {
        #[test]
        fn no_columns_make_it_fail_otherwise(
            mut columns in proptest::collection::vec(proptest::option::of("[-+tf0-9a-fA-F/.einfNa]{0,24}"), 0..14),
            is_replica in any::<bool>(),
        ) {
            if let Some(first) = columns.first_mut() {
                *first = Some(if is_replica { "t" } else { "f" }.to_owned());
            }
            let columns: Vec<_> = columns.iter().map(Option::as_deref).collect();
            read(&columns).inspect(|state| drop(state.report.to_string()));
        }
    }
}
