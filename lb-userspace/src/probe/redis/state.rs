//! What a Redis server says of its replication, and what its errors mean. No I/O.

use std::{collections::BTreeMap, time::Duration};

use super::super::{Fault, Mark, Role, RoleReport};
use crate::text::shorten;

/// A primary sends a PING every 10 s (`repl-ping-replica-period`). A replica counts whole seconds.
const HEARD_WITHIN: Duration = Duration::from_secs(11);
/// A replication id has 40 hexadecimal digits.
const ID_LENGTH: usize = 40;

/// The replication section of INFO. `None`: it is none.
pub fn read(info: &str) -> Option<RoleReport> {
    let lines: BTreeMap<_, _> = info.lines().filter_map(|line| line.split_once(':')).collect();
    let id = |key| lines.get(key).copied().filter(|id| is_id(id)).map(str::to_owned);
    // Seconds are -1 if that has never been.
    let seconds = |key| lines.get(key)?.parse().ok().map(Duration::from_secs);
    let offset = |key| lines.get(key)?.parse::<u64>().ok();
    let mark = |offset| Some(Mark::Redis { id: id("master_replid")?, former_id: id("master_replid2"), offset });
    match *lines.get("role")? {
        "master" => {
            let mark = mark(offset("master_repl_offset")?)?;
            Some(RoleReport { role: Role::Primary, is_following: false, lag: None, mark })
        }
        "slave" => {
            let is_following = *lines.get("master_link_status")? == "up";
            let silent_for = seconds("master_last_io_seconds_ago");
            let lag = if is_following {
                silent_for.map(|it| if it <= HEARD_WITHIN { Duration::ZERO } else { it })
            } else {
                seconds("master_link_down_since_seconds")
            };
            let mark = mark(offset("slave_repl_offset")?)?;
            Some(RoleReport { role: Role::Replica, is_following, lag, mark })
        }
        _ => None,
    }
}

/// Not the 40 zeros that stand for none.
fn is_id(id: &str) -> bool {
    id.len() == ID_LENGTH && id.bytes().all(|digit| digit.is_ascii_hexdigit()) && id.bytes().any(|digit| digit != b'0')
}

/// Why a server that answers PING with an error is not probed further. A replica without its primary is (MASTERDOWN): it
/// still tells its role.
pub fn obstacle(words: &str) -> Option<Fault> {
    (code(words) != "MASTERDOWN").then(|| refusal(words))
}

/// What an error says of the server. Those about the login, rights and connections say nothing.
pub fn refusal(words: &str) -> Fault {
    let said = shorten(words);
    match code(words) {
        "LOADING" => Fault::Failed("loading its data".to_owned()),
        "NOAUTH" => Fault::Undecided("the server asks for a password: set `password_file`".to_owned()),
        "WRONGPASS" | "NOPERM" | "DENIED" => Fault::Undecided(format!("the server refuses: {said}")),
        // Without a word of its own: connections, and AUTH of a server without passwords.
        "ERR" => Fault::Undecided(format!("the server refuses: {said}")),
        _ => Fault::Failed(said),
    }
}

fn code(words: &str) -> &str {
    words.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0e10ff1c0e1d48a5e4d1f5a56c8f9f0a81f0c3ab";
    const FORMER: &str = "87c9d2e8c6d2a8a06e0e1b2a3f4d5c6b7a8f9e0d";
    const NONE: &str = "0000000000000000000000000000000000000000";

    fn primary(former: &str) -> String {
        format!(
            "# Replication\r\nrole:master\r\nconnected_slaves:1\r\n\
             slave0:ip=10.0.0.2,port=6379,state=online,offset=1234,lag=0\r\nmaster_failover_state:no-failover\r\n\
             master_replid:{ID}\r\nmaster_replid2:{former}\r\nmaster_repl_offset:1234\r\nsecond_repl_offset:-1\r\n"
        )
    }

    fn replica(link: &str) -> String {
        format!(
            "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n{link}\r\n\
             slave_read_repl_offset:1240\r\nslave_repl_offset:1234\r\nslave_priority:100\r\nslave_read_only:1\r\n\
             master_replid:{ID}\r\nmaster_replid2:{NONE}\r\nmaster_repl_offset:1234\r\n"
        )
    }

    #[test]
    fn a_primary_has_an_id_and_that_of_the_history_it_continues() {
        for (former, expected) in [(NONE, None), (FORMER, Some(FORMER.to_owned()))] {
            let report = read(&primary(former)).unwrap();

            assert_eq!(report.mark, Mark::Redis { id: ID.to_owned(), former_id: expected, offset: 1234 });
            assert_eq!(report.to_string(), "primary, replication 0e10ff1c, offset 1234");
        }
    }

    #[test]
    fn a_replica_is_as_old_as_the_last_word_of_its_primary() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (link, is_following, lag) in [
            ("master_link_status:up\r\nmaster_last_io_seconds_ago:11", true, seconds(0)),
            ("master_link_status:up\r\nmaster_last_io_seconds_ago:12", true, seconds(12)),
            ("master_link_status:up\r\nmaster_last_io_seconds_ago:-1", true, None),
            (
                "master_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_link_down_since_seconds:7",
                false,
                seconds(7),
            ),
            (
                "master_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_link_down_since_seconds:-1",
                false,
                None,
            ),
        ] {
            let report = read(&replica(link)).unwrap();

            assert_eq!((report.is_following, report.lag), (is_following, lag), "{link}");
            assert_eq!(report.role, Role::Replica);
        }
    }

    #[test]
    fn what_says_no_role_is_none() {
        for wrong in ["", "role:sentinel", "role:master\r\n", "role:slave\r\nmaster_link_status:up", "# Server\r\n"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(read(&primary(NONE).replace(ID, NONE)), None);
        assert_eq!(read(&primary(NONE).replace("offset:1234\r\nsecond", "offset:-1\r\nsecond")), None);
    }

    #[test]
    fn errors_of_the_login_say_nothing_of_the_server() {
        for (words, expected) in [
            ("LOADING Redis is loading the dataset in memory", Fault::Failed("loading its data".to_owned())),
            (
                "NOAUTH Authentication required.",
                Fault::Undecided("the server asks for a password: set `password_file`".to_owned()),
            ),
            (
                "NOPERM User mon has no permissions\u{1b}[2J",
                Fault::Undecided("the server refuses: NOPERM User mon has no permissions\u{fffd}[2J".to_owned()),
            ),
            (
                "ERR max number of clients reached",
                Fault::Undecided("the server refuses: ERR max number of clients reached".to_owned()),
            ),
            ("MISCONF Errors writing to the AOF", Fault::Failed("MISCONF Errors writing to the AOF".to_owned())),
        ] {
            assert_eq!(refusal(words), expected);
            assert_eq!(obstacle(words), Some(expected));
        }
        assert_eq!(obstacle("MASTERDOWN Link with MASTER is down"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail_otherwise(info in "(role:(master|slave)\n)?([a-z_]{1,8}:[-0-9a-f]{0,41}\n){0,8}") {
            read(&info).inspect(|report| drop(report.to_string()));
        }
    }
}
