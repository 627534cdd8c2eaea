//! Which servers serve reads: replicas of the primary's history that are recent enough, and the primary as a backup.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Cluster, ClusterId, Roles, Server, key};
use crate::probe::{Mark, Role, RoleReport};

/// Why a server serves no reads, according to its last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRefusal {
    /// It is no replica, and not a backup.
    Primary,
    OtherCluster,
    FollowsNone,
    OtherHistory,
    TooFarBehind,
    LagUnknown,
}

impl ReadRefusal {
    pub const fn words(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::OtherCluster => "of another cluster",
            Self::FollowsNone => "follows no primary",
            Self::OtherHistory => "of another history",
            Self::TooFarBehind => "too far behind",
            Self::LagUnknown => "not known how far behind",
        }
    }
}

impl Roles {
    /// Why a server serves no reads. `None`: it is fit, or has not answered.
    pub fn reads_refused(
        &self,
        cluster: &Cluster<'_>,
        address: SocketAddr,
        now: Instant,
    ) -> Option<ReadRefusal> {
        let server = cluster.servers.iter().find(|server| server.address == address)?;
        let observed = self.observed.get(&key(cluster.name, address))?;
        self.read_refusal(cluster, *server, observed.report.as_ref()?, observed.lag(now))
    }

    pub(super) fn read_refusal(
        &self,
        cluster: &Cluster<'_>,
        server: Server,
        report: &RoleReport,
        lag: Option<Duration>,
    ) -> Option<ReadRefusal> {
        if report.role == Role::Primary {
            let is_used = server.is_backup && self.primary(cluster.name) == Some(server.address);
            return (!is_used).then_some(ReadRefusal::Primary);
        }
        let id = report.mark.cluster().map(ClusterId);
        let own = self.memory.service(cluster.name).cluster;
        if own.is_some() && id != own {
            return Some(ReadRefusal::OtherCluster);
        }
        let primary = self.known_primary(cluster.name, id);
        match primary {
            Some(_) if !report.is_following => return Some(ReadRefusal::FollowsNone),
            Some(primary) if !report.mark.follows(&primary.mark) => return Some(ReadRefusal::OtherHistory),
            Some(_) => {}
            // There is nothing to follow; but a timeline older than that of the last primary is a dead branch.
            None => {
                let observed = self.observed.get(&key(cluster.name, server.address));
                let term = observed.and_then(|observed| observed.term);
                if term.is_some() && term < self.memory.term(id) {
                    return Some(ReadRefusal::OtherHistory);
                }
            }
        }
        let is_recent = match (cluster.policy.max_lag, lag) {
            (None, _) => true,
            (Some(_), None) => return Some(ReadRefusal::LagUnknown),
            (Some(most), Some(lag)) => lag <= most,
        };
        let behind = primary.and_then(|primary| bytes_behind(&primary.mark, &report.mark));
        let is_near = cluster.policy.max_lag_bytes.is_none_or(|most| behind.is_none_or(|it| it <= most));
        (!is_recent || !is_near).then_some(ReadRefusal::TooFarBehind)
    }
}

/// How much of the primary's history a replica lacks.
pub fn bytes_behind(primary: &Mark, replica: &Mark) -> Option<u64> {
    Some(primary.position()?.saturating_sub(replica.position()?))
}
