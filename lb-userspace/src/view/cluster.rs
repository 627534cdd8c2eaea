//! `/v1/cluster`

use serde::{Deserialize, Serialize};

use crate::cluster::Revision;

/// `GET /v1/cluster`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Cluster {
    /// The name of this node.
    pub node: String,
    /// A majority of etcd's members has answered the last read.
    pub connected: bool,
    /// Since `connected` changed, or the daemon started.
    pub since_seconds: u64,
    /// Why it is not connected. `null`, too, before the first read has ended.
    pub failure: Option<String>,
    /// The member of etcd that answered last.
    pub endpoint: Option<String>,
    /// The services.
    pub document: ClusterPart,
    /// The changes that commands made.
    pub changes: ClusterPart,
    /// The node that stored the services.
    pub stored_by: Option<String>,
    /// When.
    pub stored_seconds_ago: Option<u64>,
    /// Why what is stored is not in force on this node.
    pub refused: Option<String>,
    /// Services in this node's file that are not in force, because the cluster has others.
    pub services_not_in_force: Vec<String>,
    /// The nodes that have said something in the last 15 seconds, by name.
    pub nodes: Vec<ClusterNode>,
}

/// A key in [`Cluster`]
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ClusterPart {
    /// The revision on this node. `null`: that of its own file or its own commands.
    pub in_force: Option<Revision>,
    /// The revision in etcd when it was last read. `null`: nothing is stored.
    pub stored: Option<Revision>,
}

impl Cluster {
    /// Does this node run what is stored?
    pub const fn is_current(&self) -> bool {
        self.refused.is_none()
    }
}

/// A node in [`Cluster`]
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ClusterNode {
    /// Its name.
    pub node: String,
    /// The version of xlb.
    pub version: String,
    /// The revision of the services there. `null`: those of its file.
    pub document: Option<Revision>,
    /// The revision of the changes there.
    pub changes: Option<Revision>,
    /// It runs what is stored.
    pub current: bool,
    /// It says that all its services are ready, and that it runs what is stored.
    pub healthy: bool,
    /// Why it is not healthy.
    pub reasons: Vec<String>,
}

/// `GET /v1/cluster/document`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ClusterDocument {
    /// Of the text.
    pub revision: Revision,
    /// The services, with a first line that names the revision.
    pub text: String,
    /// False: etcd cannot be reached, and may have something later.
    pub connected: bool,
}

/// `PUT /v1/cluster/document`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ClusterPush {
    /// The file name in messages.
    pub file: String,
    /// A whole file, or only the services. If something is stored, its first line names the revision that it was made from.
    pub text: String,
    /// The revision instead of that of the first line.
    #[serde(default)]
    pub base: Option<Revision>,
}

/// The answer to `PUT /v1/cluster/document`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ClusterPushed {
    /// Under which it is stored.
    pub revision: Revision,
    /// What the next text must have as its first line, unless another one is stored until then.
    pub first_line: String,
    /// What changed on this node, one line each.
    pub changes: Vec<String>,
    /// Warnings about the configuration in use, one line each.
    pub warnings: Vec<String>,
}
