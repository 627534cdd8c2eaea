//! The controller's interface to its host: all of its IO except the datapath.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    datapath::Attached,
    problem::Problem,
    spec::{Spec, overlay::Overlay},
};

/// The machine. Calls are short: files are small, and netlink answers at once.
pub trait Host {
    /// Reads and validates the configuration file.
    fn read_spec(&mut self) -> Result<Spec, Problem>;
    /// Keeps the overlay over restarts: it is on the disk when this returns.
    fn save_overlay(&mut self, overlay: &Overlay) -> anyhow::Result<()>;
    /// The interfaces that the program is attached to, as they are now.
    fn attached(&mut self) -> anyhow::Result<Vec<Attached>>;
    /// The addresses of this host.
    fn addresses(&mut self) -> anyhow::Result<BTreeSet<IpAddr>>;
    /// The first and the last of its ephemeral ports.
    fn local_ports(&mut self) -> anyhow::Result<(u16, u16)>;
}
