//! The role of a server, from what it says of itself. No I/O.

use std::{fmt, time::Duration};

use super::{
    super::{Fault, Mark, Role, RoleReport},
    rows::{Row, Rows},
};
use crate::{
    text::{quote, visible},
};

/// Maximum length of a GTID, in bytes.
const GTID_MAX: usize = 256;

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    is_read_only: bool,
    server: u32,
    gtid: String,
    /// The primaries that it follows, or is to follow.
    primaries: Vec<Replication>,
}

/// How a replica follows one of its primaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Replication {
    /// The number of the primary. `None`: this replica was never connected to it.
    server: Option<u32>,
    receives: bool,
    applies: bool,
    behind: Option<Duration>,
}

impl Status {
    /// `state` and `replica`: the answers to the queries of [`Engine`](super::engine::Engine).
    pub fn read(state: &Rows, replica: &Rows) -> Result<Self, Fault> {
        let state = state.iter().next().ok_or_else(|| no_answer("read_only"))?;
        let server = number(state.get(&["server_id"]));
        Ok(Self {
            is_read_only: is_on(state, "read_only")?.ok_or_else(|| no_answer("read_only"))?
                || is_on(state, "super_read_only")?.unwrap_or(false),
            server: server.ok_or_else(|| no_answer("server_id"))?,
            gtid: one_line(state.get(&["gtid"]).unwrap_or_default()),
            primaries: replica.iter().map(Replication::read).collect(),
        })
    }

    /// A replica is read-only or follows a primary. (A replica that takes writes is one all the same: its primary may send
    /// what contradicts them.)
    pub fn report(&self) -> RoleReport {
        let is_primary = !self.is_read_only && self.primaries.is_empty();
        let follows = |it: &Replication| it.receives && it.applies;
        let is_following = !self.primaries.is_empty() && self.primaries.iter().all(follows);
        let lags: Option<Vec<_>> = self.primaries.iter().map(|it| it.behind).collect();
        RoleReport {
            role: if is_primary { Role::Primary } else { Role::Replica },
            is_following,
            lag: lags.filter(|_| is_following).and_then(|lags| lags.into_iter().max()),
            mark: Mark::Mysql { server: self.server, follows: self.follows(), gtid: self.gtid.clone() },
        }
    }

    /// A replica with several primaries follows none of them alone.
    fn follows(&self) -> Option<u32> {
        match self.primaries[..] {
            [only] => only.server,
            [] | [_, _, ..] => None,
        }
    }
}

/// "replica, 0s behind, server 2, GTID 0-1-9"
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report();
        let receives = !self.primaries.is_empty() && self.primaries.iter().all(|it| it.receives);
        if report.role == Role::Replica && !report.is_following && receives {
            return write!(f, "replica, applies nothing, {}", report.mark);
        }
        report.fmt(f)
    }
}

impl Replication {
    fn read(row: Row<'_>) -> Self {
        let runs = |names: &[&str]| row.get(names) == Some("Yes");
        let behind: Option<u32> = number(row.get(&["Seconds_Behind_Source", "Seconds_Behind_Master"]));
        Self {
            server: number(row.get(&["Source_Server_Id", "Master_Server_Id"])).filter(|server| *server != 0),
            receives: runs(&["Replica_IO_Running", "Slave_IO_Running"]),
            applies: runs(&["Replica_SQL_Running", "Slave_SQL_Running"]),
            behind: behind.map(|seconds| Duration::from_secs(seconds.into())),
        }
    }
}

/// A variable that is on or off. `None`: the server lacks it.
fn is_on(state: Row<'_>, name: &str) -> Result<Option<bool>, Fault> {
    match state.get(&[name]) {
        None => Ok(None),
        Some("0" | "OFF") => Ok(Some(false)),
        // The words of MariaDB 12.
        Some("1" | "ON" | "NO_LOCK" | "NO_LOCK_NO_ADMIN") => Ok(Some(true)),
        Some(other) => Err(Fault::Failed(format!("{name} is {}, not 0 or 1", quote(other)))),
    }
}

fn no_answer(name: &str) -> Fault {
    Fault::Failed(format!("an answer without {name}"))
}

fn number(value: Option<&str>) -> Option<u32> {
    value?.parse().ok()
}

/// MySQL writes each server's ranges on a line of its own.
fn one_line(gtid: &str) -> String {
    let mut line: String = gtid.chars().filter(|c| *c != '\n').map(visible).collect();
    line.truncate(line.floor_char_boundary(GTID_MAX));
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::mysql::rows::tests::rows;

    const MARIADB: &[&str] = &["read_only", "server_id", "gtid"];
    const MYSQL: &[&str] = &["read_only", "super_read_only", "server_id", "gtid"];
    const OLD_NAMES: &[&str] = &[
        "Connection_name",
        "Slave_IO_Running",
        "Slave_SQL_Running",
        "Seconds_Behind_Master",
        "Master_Server_Id",
    ];
    const NEW_NAMES: &[&str] =
        &["Replica_IO_Running", "Replica_SQL_Running", "Seconds_Behind_Source", "Source_Server_Id"];

    /// The state of a MariaDB, and the threads, the lag and the number of each of its primaries.
    fn mariadb(read_only: &str, primaries: &[[&str; 4]]) -> Status {
        let state = rows(MARIADB, &[&[Some(read_only), Some("7"), Some("0-1-9")]]);
        let primaries: Vec<[Option<&str>; 5]> = primaries
            .iter()
            .map(|[receives, applies, behind, server]| {
                let behind = Some(*behind).filter(|it| !it.is_empty());
                [Some(""), Some(*receives), Some(*applies), behind, Some(*server)]
            })
            .collect();
        let primaries: Vec<&[Option<&str>]> = primaries.iter().map(|row| &row[..]).collect();
        Status::read(&state, &rows(OLD_NAMES, &primaries)).unwrap()
    }

    #[test]
    fn the_role_follows_from_read_only_and_from_whom_it_follows() {
        let seconds = |lag| Some(Duration::from_secs(lag));
        for (read_only, primaries, role, is_following, lag, text) in [
            ("0", &[][..], Role::Primary, false, None, "primary"),
            ("OFF", &[], Role::Primary, false, None, "primary"),
            ("1", &[], Role::Replica, false, None, "replica, receives nothing"),
            ("NO_LOCK_NO_ADMIN", &[], Role::Replica, false, None, "replica, receives nothing"),
            ("1", &[["Yes", "Yes", "0", "1"]], Role::Replica, true, seconds(0), "replica, 0s behind"),
            ("0", &[["Yes", "Yes", "7", "1"]], Role::Replica, true, seconds(7), "replica, 7s behind"),
            ("1", &[["Yes", "Yes", "", "1"]], Role::Replica, true, None, "replica, lag unknown"),
            ("1", &[["Connecting", "Yes", "3", "1"]], Role::Replica, false, None, "replica, receives nothing"),
            ("0", &[["No", "No", "", "1"]], Role::Replica, false, None, "replica, receives nothing"),
            ("1", &[["Yes", "No", "", "1"]], Role::Replica, false, None, "replica, applies nothing"),
        ] {
            let status = mariadb(read_only, primaries);

            let follows = primaries.first().map(|_| 1);
            let mark = Mark::Mysql { server: 7, follows, gtid: "0-1-9".to_owned() };
            assert_eq!(status.report(), RoleReport { role, is_following, lag, mark }, "{read_only} {primaries:?}");
            assert_eq!(status.to_string(), format!("{text}, server 7, GTID 0-1-9"));
        }
    }

    #[test]
    fn a_replica_of_several_primaries_follows_if_it_follows_all() {
        for (second, lag) in [(["Yes", "Yes", "5", "2"], Some(5)), (["No", "Yes", "", "2"], None)] {
            let report = mariadb("1", &[["Yes", "Yes", "2", "1"], second]).report();

            assert_eq!((report.is_following, report.lag), (lag.is_some(), lag.map(Duration::from_secs)));
            assert!(matches!(report.mark, Mark::Mysql { follows: None, .. }));
        }
    }

    #[test]
    fn a_replica_that_never_met_its_primary_does_not_say_whom_it_follows() {
        let report = mariadb("1", &[["Connecting", "Yes", "", "0"]]).report();

        assert!(matches!(report.mark, Mark::Mysql { follows: None, .. }));
    }

    #[test]
    fn mysql_says_the_same_in_other_words() {
        let replica = rows(NEW_NAMES, &[&[Some("Yes"), Some("Yes"), Some("4"), Some("1")]]);
        let gtid = "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5,\n5E11FA47-71CA-11E1-9E33-C80AA9429562:1-2";
        for (read_only, super_read_only, text) in
            [("0", "0", "primary"), ("1", "0", "replica, receives nothing"), ("0", "1", "replica, receives nothing")]
        {
            let state = rows(MYSQL, &[&[Some(read_only), Some(super_read_only), Some("3"), Some(gtid)]]);

            let alone = Status::read(&state, &rows(NEW_NAMES, &[])).unwrap();
            let following = Status::read(&state, &replica).unwrap();

            assert_eq!(alone.to_string(), format!("{text}, server 3, GTID {}", gtid.replace('\n', "")));
            assert!(following.to_string().starts_with("replica, 4s behind, server 3"), "{following}");
        }
    }

    #[test]
    fn a_server_without_gtids_has_a_mark_without_one() {
        let state = rows(MYSQL, &[&[Some("0"), Some("0"), Some("3"), Some("")]]);

        let status = Status::read(&state, &rows(NEW_NAMES, &[])).unwrap();

        assert_eq!(status.to_string(), "primary, server 3");
    }

    #[test]
    fn an_answer_to_another_question_is_no_status() {
        let none = rows(OLD_NAMES, &[]);
        for state in [
            rows(MARIADB, &[]),
            rows(MARIADB, &[&[Some("0"), None, Some("0-1-9")]]),
            rows(MARIADB, &[&[Some("0"), Some("4294967296"), Some("0-1-9")]]),
            rows(MARIADB, &[&[None, Some("1"), Some("0-1-9")]]),
            rows(MARIADB, &[&[Some("maybe"), Some("1"), Some("0-1-9")]]),
            rows(&["1"], &[&[Some("1")]]),
        ] {
            assert!(matches!(Status::read(&state, &none), Err(Fault::Failed(_))), "{state:?}");
        }
    }

    proptest! {
        #[test]
        fn a_gtid_is_short_and_cannot_control_the_terminal(gtid in ".{0,400}") {
            let line = one_line(&gtid);

            prop_assert!(line.len() <= GTID_MAX && !line.chars().any(char::is_control));
        }
    }
}
