//! What MariaDB and MySQL call the same things.

/// The engine and the version of a server, from its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    kind: Kind,
    version: (u32, u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    MariaDb,
    Mysql,
}

/// MariaDB 10 puts this before its version, for old replicas.
const OLD_PREFIX: &str = "5.5.5-";

impl Engine {
    pub fn of(version: &str) -> Self {
        let kind = if version.contains("MariaDB") { Kind::MariaDb } else { Kind::Mysql };
        Self { kind, version: numbers(version.strip_prefix(OLD_PREFIX).unwrap_or(version)) }
    }

    /// Asks whether it takes writes (two columns of MySQL), its number, and its place in the history. The last one may be long
    /// in MySQL: a range for each server that ever was the primary.
    pub const fn state_query(self) -> &'static str {
        match self.kind {
            Kind::MariaDb => {
                "SELECT @@global.read_only AS read_only, @@global.server_id AS server_id, \
                 LEFT(@@global.gtid_current_pos, 256) AS gtid"
            }
            Kind::Mysql => {
                "SELECT @@global.read_only AS read_only, @@global.super_read_only AS super_read_only, \
                 @@global.server_id AS server_id, LEFT(@@global.gtid_executed, 256) AS gtid"
            }
        }
    }

    /// Asks for a row for each primary that it follows.
    pub fn replica_query(self) -> &'static str {
        match self.kind {
            Kind::MariaDb => "SHOW ALL SLAVES STATUS",
            // MySQL 8.4 has removed the older statement.
            Kind::Mysql if self.version >= (8, 0, 22) => "SHOW REPLICA STATUS",
            Kind::Mysql => "SHOW SLAVE STATUS",
        }
    }

    /// The right that this takes.
    pub fn replica_right(self) -> &'static str {
        match self.kind {
            Kind::MariaDb if self.version >= (10, 5, 9) => "REPLICA MONITOR",
            Kind::MariaDb | Kind::Mysql => "REPLICATION CLIENT",
        }
    }
}

/// Three numbers, as far as there are any. Unknown forms are later than all that is known.
fn numbers(version: &str) -> (u32, u32, u32) {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    let mut next = || parts.next().flatten();
    let Some(major) = next() else { return (u32::MAX, 0, 0) };
    (major, next().unwrap_or(0), next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_asked_in_its_words() {
        let (slave, slaves, replica) = ("SHOW SLAVE STATUS", "SHOW ALL SLAVES STATUS", "SHOW REPLICA STATUS");
        for (version, query, right) in [
            ("5.5.5-10.11.19-MariaDB-0+deb12u1-log", slaves, "REPLICA MONITOR"),
            ("11.4.2-MariaDB", slaves, "REPLICA MONITOR"),
            ("5.5.5-10.4.34-MariaDB", slaves, "REPLICATION CLIENT"),
            ("5.7.44-log", slave, "REPLICATION CLIENT"),
            ("8.0.21", slave, "REPLICATION CLIENT"),
            ("8.0.22", replica, "REPLICATION CLIENT"),
            ("8.4.0", replica, "REPLICATION CLIENT"),
            ("9.1.0-commercial", replica, "REPLICATION CLIENT"),
            ("custom", replica, "REPLICATION CLIENT"),
            ("", replica, "REPLICATION CLIENT"),
        ] {
            let engine = Engine::of(version);

            assert_eq!((engine.replica_query(), engine.replica_right()), (query, right), "{version}");
        }
    }
}
