//! Answers about the cluster.

use std::time::{Duration, SystemTime};

use super::{Controller, Member, command::no_cluster};
use crate::{
    cluster::{Document, Revision, Status},
    controller::Host,
    datapath::Datapath,
    duration,
    problem::{Problem, ProblemKind},
    view,
};

impl<D: Datapath, H: Host> Controller<D, H> {
    pub(in crate::controller) fn cluster(&self) -> Result<view::Cluster, Problem> {
        let (Some(member), Some(status)) = (&self.member, self.host.cluster()) else {
            return Err(no_cluster());
        };
        Ok(member.shown(&status, SystemTime::now()))
    }

    /// What is stored, even if this node does not run it: so that it can be corrected.
    pub(in crate::controller) fn cluster_document(&self) -> Result<view::ClusterDocument, Problem> {
        let member = self.member.as_ref().ok_or_else(no_cluster)?;
        let document = member.latest.document.as_ref().or(member.copy.document.as_ref());
        let absent = || {
            let detail = "nothing is stored in the cluster: `xlb cluster push` stores the services of a file";
            Problem::new(ProblemKind::NotFound, detail)
        };
        let document = document.ok_or_else(absent)?;
        let connected = self.host.cluster().is_some_and(|it| it.is_connected);
        Ok(view::ClusterDocument { revision: document.revision, text: document.shown(), connected })
    }

    /// For the status. They are logged where they begin.
    pub(in crate::controller) fn cluster_warnings(&self) -> Vec<String> {
        let (Some(member), Some(status)) = (&self.member, self.host.cluster()) else { return Vec::new() };
        let mut warnings = Vec::new();
        if let Some(why) = &status.failure {
            let age = age(status.since, SystemTime::now());
            warnings.push(format!(
                "etcd cannot be reached, or has no majority, since {}: {why}; what is in force stays so, commands are refused",
                duration::show(Duration::from_secs(age))
            ));
        }
        if status.has_a_double {
            warnings.push(format!(
                "another node of the cluster is named {}, too: set `node` in its [cluster]",
                member.node
            ));
        }
        if let Some(why) = &member.refused {
            warnings.push(format!("what is stored in the cluster is not in force on this node: {why}"));
        }
        if member.copy.document.is_some() && member.latest.document.is_none() {
            warnings.push(
                "the services of the cluster were deleted from etcd, and stay in force: `xlb cluster pull > FILE`, then \
                 `xlb cluster push FILE` stores them again"
                    .to_owned(),
            );
        }
        if member.copy.changes.is_some() && member.latest.changes.is_none() {
            warnings.push(
                "the changes of the cluster were deleted from etcd, and stay in force: the next command, or `xlb cluster push`, \
                 stores them again"
                    .to_owned(),
            );
        }
        warnings.extend(member.copy_failure.clone());
        if self.intent.file.services.is_empty() {
            warnings.push(
                "no services: nothing is stored in the cluster, and the file has none: `xlb cluster push FILE`".to_owned(),
            );
        }
        warnings
    }
}

impl Member {
    fn shown(&self, status: &Status, now: SystemTime) -> view::Cluster {
        let (copy, latest) = (&self.copy, &self.latest);
        let stored = latest.revisions();
        let origin = latest.document.as_ref().and_then(Document::origin);
        let is_current = |document: Option<Revision>, changes: Option<Revision>| {
            (stored.document.is_none() || document == stored.document)
                && (stored.changes.is_none() || changes == stored.changes)
        };
        view::Cluster {
            node: self.node.clone(),
            connected: status.is_connected,
            since_seconds: age(status.since, now),
            failure: status.failure.clone(),
            endpoint: status.endpoint.clone(),
            document: view::ClusterPart {
                in_force: copy.document.as_ref().map(|it| it.revision),
                stored: stored.document,
            },
            changes: view::ClusterPart {
                in_force: copy.changes.as_ref().map(|it| it.revision),
                stored: stored.changes,
            },
            stored_by: origin.map(|(node, _)| node.to_owned()),
            stored_seconds_ago: origin.map(|(_, at)| age(at, now)),
            refused: self.refused.clone(),
            services_not_in_force: self.idle.clone(),
            nodes: status
                .nodes
                .iter()
                .map(|it| view::ClusterNode {
                    node: it.node.clone(),
                    version: it.version.clone(),
                    document: it.document,
                    changes: it.changes,
                    current: is_current(it.document, it.changes),
                    healthy: it.healthy,
                    reasons: it.reasons.clone(),
                })
                .collect(),
        }
    }
}

/// The clock may have been set back.
fn age(since: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(since).unwrap_or_default().as_secs()
}
