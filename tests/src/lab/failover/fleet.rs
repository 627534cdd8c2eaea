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
    nodes::Cable,
    trio::{Trio, sources},
    wait::eventually,
};

/// A change of the node with this number.
type Change = fn(&mut Trio, usize) -> Result<()>;
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
    happens: |trio, node| trio.kill(node),
    is_noticed: true,
    name_of_end: "it is back, with empty tables",
    ends: |trio, node| trio.bring_back(node),
};

/// The operator withdraws a node.
pub const ONE_DRAINED: Departure = Departure {
    name: "xlb ha drain on one of three",
    happens: |trio, node| trio.nodes[node].xlb.run(&["ha", "drain", "--wait", "10s"]).map(drop),
    is_noticed: true,
    name_of_end: "xlb ha ready",
    ends: |trio, node| trio.nodes[node].xlb.run(&["ha", "ready"]).map(drop),
};

/// All, in the order in which they are shown.
pub const DEPARTURES: [Departure; 6] = [
    ONE_KILLED,
    Departure {
        name: "link of one of three cut",
        happens: |trio, node| trio.set_cable(node, Cable::Down),
        is_noticed: true,
        name_of_end: "link repaired",
        ends: |trio, node| {
            // A cut that ends before the node has taken its addresses off makes it refuse connections until its checks succeed.
            let is_off = || Ok(!trio.nodes[node].has_the_addresses()?);
            eventually(SETTLED, "the node has taken its addresses off", is_off)?;
            trio.set_cable(node, Cable::Up)
        },
    },
    Departure {
        name: "one of three frozen",
        happens: |trio, node| trio.nodes[node].signal_all(Signal::SIGSTOP),
        is_noticed: true,
        name_of_end: "it goes on",
        ends: |trio, node| trio.nodes[node].signal_all(Signal::SIGCONT),
    },
    Departure {
        name: "BIRD killed on one of three",
        happens: |trio, node| trio.birds[node].kill(),
        is_noticed: true,
        name_of_end: "BIRD started again",
        ends: |trio, node| trio.birds[node].start_again(),
    },
    ONE_DRAINED,
    Departure {
        name: "xlb killed on one of three",
        happens: |trio, node| trio.nodes[node].xlb.kill(),
        is_noticed: false,
        name_of_end: "xlb started again",
        ends: |trio, node| trio.nodes[node].xlb.start_again(),
    },
];

/// All nodes, their servers, and the load on them.
pub struct Fleet {
    load: Load,
    trio: Trio,
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
        let lab = Trio::network(tag)?;
        let (web, echoes) = (lab.web_servers()?, serve(&lab, ECHO)?);
        let mut config = configuration(&lab, Mode::FullNat);
        let sources = sources(lab.balancers().count() as u8);
        config.services.iter_mut().for_each(|service| service.sources = Some(sources.clone()));
        let trio = Trio::start(lab, &config)?;
        let load = Load::open(&trio.lab, ECHO, connections)?;
        sleep(OLD);
        let fleet = Self { load, trio, _web: web, _echoes: echoes };
        fleet.wait_until_all_know_all()?;
        Ok(fleet)
    }

    /// Something happens to one node, and then the opposite. Returns a row for each.
    pub fn play(&mut self, departure: &Departure) -> Result<[Row; 2]> {
        let first = self.measure(departure.name, |trio| {
            let at = Instant::now();
            (departure.happens)(trio, VICTIM)?;
            if departure.is_noticed {
                trio.wait_until_it_is_not_routed(VICTIM)?;
            }
            Ok(at)
        })?;
        let second = self.measure(departure.name_of_end, |trio| {
            let at = Instant::now();
            (departure.ends)(trio, VICTIM)?;
            trio.wait_until_all_are_routed()?;
            Ok(at)
        })?;
        ensure!(second.owners.len() == self.trio.nodes.len(), "{second}: not all nodes are used");
        self.trio.nodes[VICTIM].xlb.wait_until_all_are_up()?;
        self.wait_until_all_know_all()?;
        Ok([first, second])
    }

    fn measure(&mut self, event: &str, happens: impl FnOnce(&mut Trio) -> Result<Instant>) -> Result<Row> {
        let Self { load, trio, .. } = self;
        let client = trio.lab.client.clone();
        let figures = load.during(&client, || happens(trio))?;
        Ok(Row { event: event.to_owned(), mode: Mode::FullNat, figures, owners: self.trio.routed()? })
    }

    /// Waits until each node can continue each live connection.
    fn wait_until_all_know_all(&self) -> Result<()> {
        for node in &self.trio.nodes {
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
