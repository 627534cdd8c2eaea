//! `[cluster]`: the services of a fleet, and the changes that commands made, are stored in etcd.
//!
//! ```text
//!   etcd ◀─ read each second ── exchange ── News ──▶ controller ── Copy ──▶ state directory
//!        ◀─ compare and swap ──    ▲   ◀── Write ───      │
//!                                  └────── Report ────────┘
//! ```
//!
//! The exchange talks to etcd; the controller decides what is put in force. A read has to be answered by a majority of etcd's
//! members, so one that is not answered in time shows that there is none. Nothing is watched: a watch would say nothing.

mod client;
pub mod copy;
pub mod exchange;
mod record;
mod tls;
pub mod wire;

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

pub use self::{
    record::{Document, NodeRecord, pushed},
    tls::check_files,
};

/// The most bytes of a document with the changes: etcd refuses requests of more than 1.5 MiB.
pub const MAX_STORED: usize = 1_500_000;

/// When a key was changed, in etcd's count of all changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What both keys have. `None`: the key does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revisions {
    /// Of the services.
    pub document: Option<Revision>,
    /// Of the changes that commands made.
    pub changes: Option<Revision>,
}

/// The changes that commands made, as the overlay's file has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// Of the key.
    pub revision: Revision,
    /// Of the format of `overlay.json`.
    pub json: String,
}

/// The contents of both keys at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The services.
    pub document: Option<Document>,
    /// The changes that commands made to them.
    pub changes: Option<Changes>,
    /// The cluster of etcd's members: another etcd has another number.
    pub etcd: u64,
}

impl Stored {
    /// Neither key exists.
    pub const fn is_empty(&self) -> bool {
        self.document.is_none() && self.changes.is_none()
    }

    /// Which versions these are.
    pub fn revisions(&self) -> Revisions {
        Revisions {
            document: self.document.as_ref().map(|it| it.revision),
            changes: self.changes.as_ref().map(|it| it.revision),
        }
    }
}

/// To be stored if both keys still have these revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What this node has seen last.
    pub base: Revisions,
    /// The value of the key, with its first line. `None`: it stays.
    pub document: Option<String>,
    /// The value of the key. `None`: it stays.
    pub changes: Option<String>,
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it, with this revision.
    Stored {
        /// Of the keys that were written.
        revision: Revision,
        /// The etcd that has it.
        etcd: u64,
    },
    /// Nothing: etcd did not want it.
    Refused(String),
    /// Nothing: another node was faster, and this is what it stored.
    Outdated(Stored),
    /// Nothing.
    Failed(String),
    /// No answer came to a request that etcd may have carried out.
    Unknown(String),
}

/// What the controller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something else is stored than what it was told before.
    Stored(Stored),
    /// The end of its write.
    Written(Written),
}

/// What the controller says of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In force.
    pub revisions: Revisions,
    /// Why what is stored is not in force. `None`: it is.
    pub refused: Option<String>,
}

/// What the exchange says of etcd and the other nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// A majority of its members has answered the last read.
    pub is_connected: bool,
    /// When that began.
    pub since: SystemTime,
    /// Why not. `None`, too, before the first read has ended.
    pub failure: Option<String>,
    /// The member that answered last.
    pub endpoint: Option<String>,
    /// Another node has the name of this one.
    pub has_a_double: bool,
    /// In the order of their names.
    pub nodes: Vec<NodeRecord>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            is_connected: false,
            since: SystemTime::UNIX_EPOCH,
            failure: None,
            endpoint: None,
            has_a_double: false,
            nodes: Vec::new(),
        }
    }
}
