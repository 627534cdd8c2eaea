//! What is remembered of clusters across restarts of the daemon.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::probe::Mark;

/// A cluster of database servers, by the identifier that its engine gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterId(pub u64);

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleMemory {
    /// The highest term ever seen on a primary. It never falls.
    pub terms: BTreeMap<ClusterId, u32>,
    /// By the name of the service.
    pub services: BTreeMap<String, ServiceMemory>,
}

/// What is remembered of one service with a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceMemory {
    /// The cluster of its first primary. Servers of other clusters get no flows.
    pub cluster: Option<ClusterId>,
    /// Its last primary.
    pub primary: Option<Holder>,
    /// The operator refuses all writes until there is a primary that is newer than this.
    pub fence: Option<Fence>,
    /// The operator has chosen this server among several that say primary.
    pub forced: Option<Forced>,
}

/// A server that held the primary role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    pub address: SocketAddr,
    /// Its term, for engines that have terms.
    pub term: Option<u32>,
    /// The identifier of its history, for engines that have one.
    pub history: Option<String>,
}

/// A server that the operator has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forced {
    pub address: SocketAddr,
    /// The highest term at that time, which does not exclude it.
    pub term: Option<u32>,
}

/// A fence set by the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The last primary, and the servers that said primary at that time.
    pub fenced: Vec<SocketAddr>,
    /// The highest term at that time.
    pub term: Option<u32>,
    /// Seconds since 1970.
    pub since: u64,
}

impl Holder {
    pub fn new(address: SocketAddr, mark: &Mark) -> Self {
        Self { address, term: mark.term(), history: mark.history().map(str::to_owned) }
    }
}

/// "timeline 3", "replication 1b159178", "no mark": what is remembered of its [`Mark`].
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.term, &self.history) {
            (Some(term), _) => write!(f, "timeline {term}"),
            (None, Some(history)) => write!(f, "replication {history:.8}"),
            (None, None) => f.write_str("no mark"),
        }
    }
}

impl RoleMemory {
    pub fn term(&self, cluster: Option<ClusterId>) -> Option<u32> {
        self.terms.get(&cluster?).copied()
    }

    pub fn service(&self, name: &str) -> ServiceMemory {
        self.services.get(name).cloned().unwrap_or_default()
    }
}
