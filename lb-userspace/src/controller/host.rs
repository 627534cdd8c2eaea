//! The controller's interface to the host: all of its IO except the datapath.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::roles::RoleMemory;
use crate::{
    announced_addresses::Placed,
    cluster::{self, Document, copy::Copy},
    datapath::Attached,
    group::{status::GroupStatus, view::View},
    problem::Problem,
    spec::{Services, Spec, overlay::Overlay},
};

/// The host. Calls are short: files are small, and netlink answers at once.
pub trait Host {
    /// Reads and validates the configuration file, with these services instead of its own.
    fn read_spec(&mut self, document: Option<&Document>) -> Result<Spec, Problem>;
    /// What [`read_spec`](Self::read_spec) has read is in force.
    fn keep_file(&mut self);
    /// Validates these services with the rest of the file that is in force.
    fn combine(&mut self, services: Services<'_>) -> Result<Spec, Problem>;
    /// Services of the file that are not in force as it has them. `in_force`: with the services of the cluster.
    fn idle_services(&mut self, in_force: &Spec) -> Vec<String>;
    /// Saves the overlay. When this returns, it is on disk.
    fn save_overlay(&mut self, overlay: &Overlay) -> anyhow::Result<()>;
    /// Saves what is remembered of database clusters. When this returns, it is on disk.
    fn save_roles(&mut self, memory: &RoleMemory) -> anyhow::Result<()>;
    /// Saves whether this node is drained. When this returns, it is on disk.
    fn save_drained(&mut self, is_drained: bool) -> anyhow::Result<()>;
    /// Writes the track file.
    fn track(&mut self, value: i16) -> anyhow::Result<()>;
    /// The addresses on the device of `[announce]`, and those that xlb has put on any.
    fn placed(&mut self) -> anyhow::Result<Vec<Placed>>;
    /// Puts an address on the device of `[announce]`.
    fn announce(&mut self, address: IpAddr) -> anyhow::Result<()>;
    /// Takes off an address that xlb has put there.
    fn withdraw(&mut self, address: &Placed) -> anyhow::Result<()>;
    /// What the exchange of flows says of the group. `None`: this node is alone.
    fn group(&self) -> Option<Arc<GroupStatus>>;
    /// Tells the exchange of flows which flows of peers this node can take.
    fn share(&mut self, view: View);
    /// What the exchange with etcd says. `None`: there is no `[cluster]`.
    fn cluster(&self) -> Option<Arc<cluster::Status>>;
    /// Begins to write to etcd. The end is an event.
    fn write(&mut self, write: cluster::Write) -> Result<(), Problem>;
    /// Tells the exchange with etcd what is in force.
    fn report(&mut self, report: cluster::Report);
    /// Saves what is in force of the cluster. When this returns, it is on disk.
    fn save_copy(&mut self, copy: &Copy) -> anyhow::Result<()>;
    /// Lists the interfaces that the program is attached to.
    fn attached(&mut self) -> anyhow::Result<Vec<Attached>>;
    /// Lists the addresses of this host.
    fn addresses(&mut self) -> anyhow::Result<BTreeSet<IpAddr>>;
    /// The first and last port of the ephemeral range.
    fn local_ports(&mut self) -> anyhow::Result<(u16, u16)>;
}
