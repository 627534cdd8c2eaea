//! The nodes do not see each other, and both are active: IPv4 reaches one of them, and IPv6 the other.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{ECHO, Load, Row, Scene, clients};
use crate::lab::{
    Family, Namespace, Pair, address,
    nodes::{Nodes, Sight},
    wait::eventually,
};

/// For so long after a change of an entry, Linux ignores what a gratuitous ARP packet says (`net.ipv4.neigh.*.locktime`).
const LOCKED: Duration = Duration::from_millis(1100);
/// After this time, the act has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of it.
#[derive(Clone, Debug)]
pub struct Split {
    /// While the nodes do not see each other, and afterwards.
    pub rows: [Row; 2],
    /// From the moment in which they see each other until both know all open connections, and know the same of each.
    pub agreed_after: Duration,
    /// Connections that began while both were active, and those of them that are left.
    pub begun: usize,
    /// See [`Self::begun`].
    pub left: usize,
}

impl Scene {
    /// Splits the nodes for `time`, opens more live connections on both, and joins them again.
    pub fn split(&mut self, time: Duration, connections: usize) -> Result<Split> {
        self.both.set_sight(Sight::None)?;
        self.both.nodes.iter().try_for_each(|node| node.wait_until("active"))?;
        steer(&self.both)?;
        let mut more = None;
        let apart = self.measure("both active, apart", |both| {
            let at = Instant::now();
            more = Some(Load::open(&both.lab, ECHO, connections)?);
            sleep(time);
            Ok(at)
        })?;
        let more = more.context("no connections were opened")?;
        let alive = more.count_alive()?;
        ensure!(alive == connections, "{alive} of {connections} are served while both nodes are active");

        unsteer(&self.both)?;
        sleep(LOCKED);
        let mut agreed_after = Duration::ZERO;
        let together = self.measure("both active, together again", |both| {
            let at = Instant::now();
            both.set_sight(Sight::Full)?;
            agreed_after = wait_until_tables_agree(both)?;
            both.wait_until_one_is_active()?;
            Ok(at)
        })?;
        self.both.wait_until_both_share()?;
        let report = more.finish()?;
        let left = connections - report.broken.len();
        Ok(Split { rows: [apart, together], agreed_after, begun: connections, left })
    }
}

/// Waits until both nodes know each open connection to the echo service, with the same backend and source. Returns how
/// long that took.
fn wait_until_tables_agree(both: &Nodes) -> Result<Duration> {
    eventually(PATIENCE, "both nodes know the same of all open connections", || {
        let (one, two) = (both.nodes[0].flows("echo")?, both.nodes[1].flows("echo")?);
        let clients = clients(both)?;
        Ok(clients.iter().all(|client| one.get(client).is_some_and(|flow| two.get(client) == Some(flow))))
    })
}

/// The router and the servers send IPv4 to the first node, and IPv6 to the second, whichever node announces the addresses.
fn steer(both: &Nodes) -> Result<()> {
    set_neighbours(both, "permanent")
}

/// The same entries, which a node that announces the addresses can change.
fn unsteer(both: &Nodes) -> Result<()> {
    set_neighbours(both, "stale")
}

fn set_neighbours(both: &Nodes, state: &str) -> Result<()> {
    for (family, node) in Family::ALL.into_iter().zip(&both.nodes) {
        for (host, device, address, interface) in neighbours(both)? {
            let mac = mac(&node.namespace, interface)?;
            let address = address.of(family).to_string();
            let entry = ["neigh", "replace", &address, "lladdr", &mac, "dev", device, "nud", state];
            host.run(&[&["ip"], &entry[..]].concat())?;
        }
    }
    Ok(())
}

/// Hosts that send to an address that moves, by a device, to an interface of a node.
fn neighbours(both: &Nodes) -> Result<Vec<(&Namespace, &'static str, Pair, &'static str)>> {
    let servers = both.lab.backends.iter().map(|it| (&it.namespace, "eth0", address::SOURCE, "eth1"));
    Ok(servers.chain([(both.edge()?, "br0", address::SERVICE, "eth0")]).collect())
}

fn mac(host: &Namespace, interface: &str) -> Result<String> {
    let shown: Value = serde_json::from_str(&host.run(&["ip", "-json", "link", "show", interface])?)?;
    Ok(shown[0]["address"].as_str().context("an interface without an address")?.to_owned())
}
