//! What a database server says of its role, as its check has read it.
//!
//! A mark is the server's place in the history of its cluster. Marks of two servers tell which one is newer, as far as the
//! engine has such a thing.

use std::{fmt, time::Duration};

use crate::{
    duration,
    named::{json_by_name, named},
};

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleReport {
    /// According to its last answer.
    pub role: Role,
    /// A replica: it receives from a primary, so that its lag is known.
    pub is_following: bool,
    /// A replica: how old its data may be. Zero if it has everything that its primary has sent. `None`: unknown.
    pub lag: Option<Duration>,
    /// Its place in the history.
    pub mark: Mark,
}

/// The role of a database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica,
}

named!(Role { Primary = "primary", Replica = "replica", });
json_by_name!(Role);

/// A place in the history of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// PostgreSQL.
    Postgres {
        /// The system identifier: the same on all servers of a cluster, for ever.
        system: u64,
        /// Of a primary: that of its current WAL. Of a replica: that which it receives. `None`: it receives nothing.
        timeline: Option<u32>,
        /// Of a primary: where it writes. Of a replica: what it has replayed.
        position: u64,
    },
    /// MySQL and MariaDB.
    Mysql {
        /// The server's number in its cluster.
        server: u32,
        /// A replica: the number of the server that it follows, if it tells.
        follows: Option<u32>,
        /// The GTID position (MariaDB), or the executed GTID set (MySQL).
        gtid: String,
    },
    /// Redis and Valkey.
    Redis {
        /// The replication id.
        id: String,
        /// The id of the history that this one continues, since the server was promoted.
        former_id: Option<String>,
        /// Bytes of the replication stream.
        offset: u64,
    },
}

impl Mark {
    /// The cluster, if the engine has identifiers of clusters.
    pub const fn cluster(&self) -> Option<u64> {
        match self {
            Self::Postgres { system, .. } => Some(*system),
            Self::Mysql { .. } | Self::Redis { .. } => None,
        }
    }

    /// A number that rises with each promotion, if the engine has one.
    pub const fn term(&self) -> Option<u32> {
        match self {
            Self::Postgres { timeline, .. } => *timeline,
            Self::Mysql { .. } | Self::Redis { .. } => None,
        }
    }

    /// How many bytes of history the server has, for differences.
    pub const fn position(&self) -> Option<u64> {
        match self {
            Self::Postgres { position, .. } => Some(*position),
            Self::Redis { offset, .. } => Some(*offset),
            Self::Mysql { .. } => None,
        }
    }

    /// The identifier of the server's history, if the engine gives it a new one with each promotion.
    pub fn history(&self) -> Option<&str> {
        match self {
            Self::Redis { id, .. } => Some(id),
            Self::Postgres { .. } | Self::Mysql { .. } => None,
        }
    }

    /// Is this history its own, or the one that it continues?
    pub fn is_of_history(&self, history: &str) -> bool {
        match self {
            Self::Redis { id, former_id, .. } => id == history || former_id.as_deref() == Some(history),
            Self::Postgres { .. } | Self::Mysql { .. } => false,
        }
    }

    /// Does this replica follow the history of that primary? If the engine does not tell, it is assumed.
    pub fn follows(&self, primary: &Self) -> bool {
        match (self, primary) {
            (
                Self::Postgres { system, timeline, .. },
                Self::Postgres { system: other, timeline: its_timeline, .. },
            ) => system == other && timeline == its_timeline,
            (Self::Redis { id, .. }, Self::Redis { id: other, .. }) => id == other,
            (Self::Mysql { follows, .. }, Self::Mysql { server, .. }) => {
                follows.is_none_or(|followed| followed == *server)
            }
            (Self::Postgres { .. } | Self::Redis { .. } | Self::Mysql { .. }, _) => false,
        }
    }

    /// Was this server promoted when it had followed that one?
    pub fn continues(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Redis { id, former_id: Some(former), .. }, Self::Redis { id: other, .. }) => {
                former == other && id != other
            }
            (Self::Redis { .. } | Self::Postgres { .. } | Self::Mysql { .. }, _) => false,
        }
    }
}

/// "primary, timeline 3, 0/3000148", "replica, 1.2s behind, timeline 3, 0/3000148", "replica, receives nothing, 0/3000148".
impl fmt::Display for RoleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, is_following, lag, mark } = self;
        match (role, is_following, lag) {
            (Role::Primary, _, _) => write!(f, "primary, {mark}"),
            (Role::Replica, false, _) => write!(f, "replica, receives nothing, {mark}"),
            (Role::Replica, true, None) => write!(f, "replica, lag unknown, {mark}"),
            (Role::Replica, true, Some(lag)) => write!(f, "replica, {} behind, {mark}", Behind(*lag)),
        }
    }
}

/// A lag: a tenth of a second matters only if it is small.
struct Behind(Duration);

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_nanos() != 0 && self.0.as_secs() < 10 {
            write!(f, "{:.1}s", self.0.as_secs_f64())
        } else {
            f.write_str(&duration::show(Duration::from_secs(self.0.as_secs())))
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres { timeline: Some(timeline), position, .. } => {
                write!(f, "timeline {timeline}, {}", Lsn(*position))
            }
            Self::Postgres { timeline: None, position, .. } => write!(f, "{}", Lsn(*position)),
            Self::Mysql { server, gtid, .. } if gtid.is_empty() => write!(f, "server {server}"),
            Self::Mysql { server, gtid, .. } => write!(f, "server {server}, GTID {gtid}"),
            Self::Redis { id, offset, .. } => write!(f, "replication {id:.8}, offset {offset}"),
        }
    }
}

/// A position in the WAL, as PostgreSQL writes it.
struct Lsn(u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}
