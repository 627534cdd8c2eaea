//! The controller's interface to the host: all of its IO except the datapath.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::roles::RoleMemory;
use crate::{
    announced_addresses::Placed,
    datapath::Attached,
    group::{status::GroupStatus, view::View},
    problem::Problem,
    spec::{Spec, overlay::Overlay},
};

/// The host. Calls are short: files are small, and netlink answers at once.
pub trait Host {
    /// Reads and validates the configuration file.
    fn read_spec(&mut self) -> Result<Spec, Problem>;
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
    /// Lists the interfaces that the program is attached to.
    fn attached(&mut self) -> anyhow::Result<Vec<Attached>>;
    /// Lists the addresses of this host.
    fn addresses(&mut self) -> anyhow::Result<BTreeSet<IpAddr>>;
    /// The first and last port of the ephemeral range.
    fn local_ports(&mut self) -> anyhow::Result<(u16, u16)>;
}
