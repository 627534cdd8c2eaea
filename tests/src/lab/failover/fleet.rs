//! Three nodes that are active at once, and what becomes of all their connections when one of them leaves and returns.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_common::service::Mode;
use nix::sys::signal::Signal;

use super::{ECHO, Load, OLD, Row, configuration};
use crate::lab::{
    Lab, Server, Web,
    cluster::{Cluster, sources},
    nodes::Cable,
    wait::eventually,
};

/// A change of the node with this number.
type Change = fn(&mut Cluster, usize) -> Result<()>;
/// Which node leaves.
const VICTIM: usize = 0;
/// The time limit of a wait for flows.
const SETTLED: Duration = Duration::from_secs(20);

/// What happens to a node of the fleet.
#[derive(Clone, Copy)]
pub struct Departure {
    /// A few words.
    pub name: &'static str,
    happens: Change,
    /// Does the router notice?
    is_noticed: bool,
    /// A few words for the end.
    pub name_of_end: &'static str,
    ends: Change,
}

/// A host dies.
pub const ONE_KILLED: Departure = Departure {
    name: "one of three killed",
    happens: |cluster, node| cluster.kill(node),
    is_noticed: true,
    name_of_end: "it is back, with empty tables",
    ends: |cluster, node| cluster.bring_back(node),
};

/// The operator withdraws a node.
pub const ONE_DRAINED: Departure = Departure {
    name: "xlb ha drain on one of three",
    happens: |cluster, node| cluster.nodes[node].xlb.run(&["ha", "drain", "--wait", "10s"]).map(drop),
    is_noticed: true,
    name_of_end: "xlb ha ready",
    ends: |cluster, node| cluster.nodes[node].xlb.run(&["ha", "ready"]).map(drop),
};

/// All, in the order in which they are shown.
pub const DEPARTURES: [Departure; 6] = [
    ONE_KILLED,
    Departure {
        name: "link of one of three cut",
        happens: |cluster, node| cluster.set_cable(node, Cable::Down),
        is_noticed: true,
        name_of_end: "link repaired",
        ends: |cluster, node| {
            // A cut that ends before the node has taken its addresses off makes it refuse connections until its checks succeed.
            let is_off = || Ok(!cluster.nodes[node].has_the_addresses()?);
            eventually(SETTLED, "the node has taken its addresses off", is_off)?;
            cluster.set_cable(node, Cable::Up)
        },
    },
    Departure {
        name: "one of three frozen",
        happens: |cluster, node| cluster.nodes[node].signal_all(Signal::SIGSTOP),
        is_noticed: true,
        name_of_end: "it goes on",
        ends: |cluster, node| cluster.nodes[node].signal_all(Signal::SIGCONT),
    },
    Departure {
        name: "BIRD killed on one of three",
        happens: |cluster, node| cluster.birds[node].kill(),
        is_noticed: true,
        name_of_end: "BIRD started again",
        ends: |cluster, node| cluster.birds[node].start_again(),
    },
    ONE_DRAINED,
    Departure {
        name: "xlb killed on one of three",
        happens: |cluster, node| cluster.nodes[node].xlb.kill(),
        is_noticed: false,
        name_of_end: "xlb started again",
        ends: |cluster, node| cluster.nodes[node].xlb.start_again(),
    },
];

/// All nodes, their servers, and the load on them.
pub struct Fleet {
    load: Load,
    cluster: Cluster,
    _web: Vec<Web>,
    _echoes: Vec<Server>,
}

impl Fleet {
    /// Starts everything, and opens the live connections. `serve` starts the echo servers.
    pub fn start(
        tag: &'static str,
        connections: usize,
        serve: impl FnOnce(&Lab, u16) -> Result<Vec<Server>>,
    ) -> Result<Self> {
        let lab = Cluster::network(tag)?;
        let (web, echoes) = (lab.web_servers()?, serve(&lab, ECHO)?);
        let mut config = configuration(&lab, Mode::FullNat);
        let sources = sources(lab.balancers().count() as u8);
        config.services.iter_mut().for_each(|service| service.sources = Some(sources.clone()));
        let cluster = Cluster::start(lab, &config)?;
        let load = Load::open(&cluster.lab, ECHO, connections)?;
        sleep(OLD);
        let fleet = Self { load, cluster, _web: web, _echoes: echoes };
        fleet.wait_until_all_know_all()?;
        Ok(fleet)
    }

    /// Something happens to one node, and then the opposite. Returns a row for each.
    pub fn play(&mut self, departure: &Departure) -> Result<[Row; 2]> {
        let first = self.measure(departure.name, |cluster| {
            let at = Instant::now();
            (departure.happens)(cluster, VICTIM)?;
            if departure.is_noticed {
                cluster.wait_until_it_is_not_routed(VICTIM)?;
            }
            Ok(at)
        })?;
        let second = self.measure(departure.name_of_end, |cluster| {
            let at = Instant::now();
            (departure.ends)(cluster, VICTIM)?;
            cluster.wait_until_all_are_routed()?;
            Ok(at)
        })?;
        ensure!(second.owners.len() == self.cluster.nodes.len(), "{second}: not all nodes are used");
        self.cluster.nodes[VICTIM].xlb.wait_until_all_are_up()?;
        self.wait_until_all_know_all()?;
        Ok([first, second])
    }

    fn measure(&mut self, event: &str, happens: impl FnOnce(&mut Cluster) -> Result<Instant>) -> Result<Row> {
        let Self { load, cluster, .. } = self;
        let client = cluster.lab.client.clone();
        let figures = load.during(&client, || happens(cluster))?;
        Ok(Row { event: event.to_owned(), mode: Mode::FullNat, figures, owners: self.cluster.routed()? })
    }

    /// Waits until each node can continue each live connection.
    fn wait_until_all_know_all(&self) -> Result<()> {
        for node in &self.cluster.nodes {
            node.wait_until_it_shares()?;
            let what = format!("{} knows all {} live connections", node.name, self.load.connections);
            eventually(SETTLED, &what, || Ok(node.flows("echo")?.len() >= self.load.connections))?;
        }
        Ok(())
    }

    /// Closes all connections. An error if one of them has broken.
    pub fn end(self) -> Result<()> {
        self.load.close()
    }
}
