//! `GET /v1/status`

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Cluster, FlowCount, Group, ServiceRole};
use crate::{
    named::{self, json_by_name, named},
    spec::LinkMode,
};

/// `GET /v1/status`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Status {
    /// The daemon's version, which may differ from the CLI's.
    pub version: String,
    /// Since the daemon started. The data plane may be older.
    pub uptime_seconds: u64,
    /// The path of the configuration file.
    pub config: String,
    /// Whether this host has the addresses of the services.
    #[serde(default)]
    pub node: Node,
    /// The nodes that share flows. `null`: this node is alone.
    #[serde(default)]
    pub group: Option<Group>,
    /// What the fleet has in common. `null`: the services are in this node's file.
    #[serde(default)]
    pub cluster: Option<Cluster>,
    /// Attached interfaces, then configured ones that are not attached.
    pub interfaces: Vec<Interface>,
    /// In the order of the file.
    pub services: Vec<ServiceSummary>,
    /// Services whose backends need a role.
    #[serde(default)]
    pub roles: Vec<ServiceRole>,
    /// Over all services, at most a second old.
    pub flows: FlowCount,
    /// Changes made by commands, one line each: "web/web-1: drain".
    pub overlay: Vec<String>,
    /// Problems, and how to solve them.
    pub warnings: Vec<String>,
    /// The start counts as a reload.
    pub last_reload_successful: bool,
    /// `null` after a successful reload.
    pub last_reload_error: Option<String>,
    /// Memory of all maps.
    pub map_memory_bytes: u64,
    /// The most services that the maps have room for.
    #[serde(default)]
    pub services_max: u32,
    /// The most backends that the maps have room for, over all services.
    #[serde(default)]
    pub backends_max: u32,
    /// The slots that the schedules of all services can need.
    #[serde(default)]
    pub slots: u64,
    /// The most slots that the maps have room for.
    #[serde(default)]
    pub slots_max: u32,
}

/// This node in [`Status`]
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Node {
    /// active | partial | standby
    pub state: Presence,
    /// By the operator: it must not have the service addresses.
    #[serde(default)]
    pub drained: bool,
    /// Since the state changed, or the daemon started.
    pub since_seconds: u64,
    /// Listen addresses that are not on this host, with the command that adds them. Normal while another node has them.
    pub missing: Vec<String>,
    /// `null` without `[announce]`.
    #[serde(default)]
    pub announce: Option<Announcement>,
}

/// What this node announces of the addresses of its services, in [`Node`]
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Announcement {
    /// The device of `[announce]`.
    pub device: String,
    /// Listen addresses and sources that are on the device.
    pub announced: Vec<IpAddr>,
    /// Those that are not.
    pub withdrawn: Vec<IpAddr>,
}

/// How many of the listen addresses, of a service or of all services, are on this host
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// All of them.
    #[default]
    Active,
    /// Some of them.
    Partial,
    /// None of them: another node has them.
    Standby,
}

named!(Presence {
    Active = "active",
    Partial = "partial",
    Standby = "standby",
});
json_by_name!(Presence);

/// An interface in [`Status`]
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Interface {
    /// The name in the kernel and in the file.
    pub name: String,
    /// The interface index. 0: not attached.
    pub index: u32,
    /// native | generic | none (not attached)
    #[serde(with = "named")]
    pub mode: Option<LinkMode>,
    /// False: it is in the file, but the program is not attached.
    pub attached: bool,
    /// Length of the longest IP packet. 0: not attached.
    pub mtu: u32,
}

/// A service in [`Status`]
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ServiceSummary {
    /// As in the file.
    pub name: String,
    /// Backends that are up, or not checked.
    pub backends_up: u32,
    /// All backends, in any state.
    pub backends: u32,
    /// Backends that get new flows.
    pub backends_serving: u32,
    /// The quorum is reached.
    #[serde(default = "ready_by_default")]
    pub ready: bool,
    /// active | partial | standby: whether its listen addresses are on this host.
    #[serde(default)]
    pub state: Presence,
    /// The service is ready while at least this many backends are available.
    #[serde(default)]
    pub quorum: u32,
    /// Backends that count for the quorum: those that would get new flows without panic.
    #[serde(default)]
    pub backends_available: u32,
}

/// An older daemon has no quorum.
pub(super) const fn ready_by_default() -> bool {
    true
}
