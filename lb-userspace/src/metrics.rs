//! Metrics for Prometheus: pure rendering of the controller's state, in text format 0.0.4.
//!
//! The controller fills an [`Input`]. [`render`] turns it into families ([`families()`], one function per family) and
//! adds the `process_*` ones. It runs outside the controller, because the text can be megabytes long. Client addresses are
//! never labels: labels are bounded by the configuration.

mod durations;
mod families;
mod family;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::SystemTime};

use lb_common::{
    counters::{ActionCounters, BackendCounters, Tally},
    reason::Reason,
};
use prometheus::{TextEncoder, core::Collector, process_collector::ProcessCollector, proto::MetricFamily};

use crate::{
    group::status::GroupStatus,
    probe::ProbeOutcome,
    spec::rules::Family,
    view::{self, Presence},
};

pub use durations::Durations;
pub use families::families;

/// The values to render.
#[derive(Clone, Debug)]
pub struct Input {
    /// Whether this node has the listen addresses.
    pub state: Presence,
    /// Whether each address of the services is on the device of `[announce]`. Empty without one.
    pub announced: Vec<(IpAddr, bool)>,
    pub services: Vec<Service>,
    /// `None`: this node is alone.
    pub group: Option<Arc<GroupStatus>>,
    /// `None`: there is no `[cluster]`.
    pub cluster: Option<view::Cluster>,
    pub interfaces: Vec<Interface>,
    /// IPv4, then IPv6.
    pub flow_tables: [FlowTable; 2],
    pub reasons: BTreeMap<Reason, Tally>,
    /// How often the controller has changed the maps.
    pub map_updates: u64,
    pub last_reload_successful: bool,
    /// The start counts as a reload.
    pub last_reload_success: SystemTime,
    /// CPU time, memory and files of this process.
    pub process: Vec<MetricFamily>,
}

/// The flow table of one family.
#[derive(Clone, Debug)]
pub struct FlowTable {
    pub family: Family,
    pub flows: Flows,
    /// The capacity of the table, in flows.
    pub established_max: u64,
    pub half_open_max: u64,
}

/// Flows by state. Closed flows are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    pub half_open: u64,
    pub established: u64,
    pub closing: u64,
    /// Closing flows that were reset. A new flow may take their record or port if it finds no other.
    pub reset: u64,
}

impl Flows {
    pub const fn all(self) -> u64 {
        self.half_open + self.established + self.closing
    }

    /// Flows whose records no new flow can take.
    pub const fn fixed(self) -> u64 {
        self.established + self.closing - self.reset
    }

    /// Adds the flows of another backend.
    pub const fn add(&mut self, other: Self) {
        self.half_open += other.half_open;
        self.established += other.established;
        self.closing += other.closing;
        self.reset += other.reset;
    }
}

#[derive(Clone, Debug)]
pub struct Service {
    pub view: view::Service,
    /// Packets for the service, forwarded or dropped. Must not decrease when a backend is removed.
    pub received: Tally,
    /// Must not decrease when a backend is removed.
    pub new_flows: u64,
    /// New flows of clients that another backend had refused.
    pub retried_flows: u64,
    /// `None`: no primary is needed.
    pub fenced: Option<bool>,
    /// Whether health is ignored, for each family that it listens on.
    pub panic: Vec<(Family, bool)>,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug)]
pub struct Backend {
    pub view: view::Backend,
    pub counters: BackendCounters,
    /// Changes from up to down or back.
    pub state_changes: u64,
    /// `None`: there is no health check.
    pub checks: Option<Checks>,
    /// When the first certificate of its chain ends. `None`: no check has seen one.
    pub certificate_ends: Option<SystemTime>,
}

/// Results of the probes of a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checks {
    pub results: BTreeMap<ProbeOutcome, u64>,
    pub durations: Durations,
}

#[derive(Clone, Debug)]
pub struct Interface {
    pub view: view::Interface,
    pub actions: ActionCounters,
}

/// What [`Input::process`] has.
pub fn process() -> Vec<MetricFamily> {
    ProcessCollector::for_self().collect()
}

/// The answer to `GET /metrics`.
pub fn render(input: &Input) -> Result<String, prometheus::Error> {
    let mut all = families(input);
    all.extend_from_slice(&input.process);
    TextEncoder::new().encode_to_string(&all)
}

#[cfg(test)]
mod tests;
