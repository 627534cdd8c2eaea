//! Two nodes that share their flows, under load, and what becomes of the load when one of them fails and returns.
//!
//! ```text
//!              2,000 connections with a byte every 100 ms, 200 new ones a second, over IPv4 and IPv6
//!   client ── edge ─┬─ lb-1 ─┬─ switch ─┬─ web-1
//!                   └─ lb-2 ─┘          ├─ web-2
//!                                       └─ web-3
//! ```
//!
//! Test and `cargo xtask lab failover` play the same [`events`](EVENTS).

pub mod demo;
mod events;
mod fleet;
mod load;
mod split;
mod table;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_common::{net::Protocol, service::Mode};

pub use self::{
    events::{DRAINED, EVENTS, Event, FRONT_CUT, KEEPALIVED_KILLED, KILLED, XLB_KILLED},
    fleet::{DEPARTURES, Departure, Fleet, ONE_DRAINED, ONE_KILLED},
    load::Load,
    split::Split,
    table::{Row, Table},
};
use super::{Config, Lab, Server, Web, config::Service, nodes::Nodes};

/// The port of the echo service, and of its servers.
const ECHO: u16 = 7;
/// From one health check to the next, and the limit of one: patient, because the load is heavy.
const CHECKS: Duration = Duration::from_millis(500);
/// Live connections are older than this before anything happens to them.
const OLD: Duration = Duration::from_secs(1);

/// Both nodes, their servers, and the load on them.
pub struct Scene {
    load: Load,
    /// Both nodes.
    pub both: Nodes,
    mode: Mode,
    web: Vec<Web>,
    _echoes: Vec<Server>,
}

impl Scene {
    /// Starts everything, and opens the live connections. `serve` starts the echo servers.
    pub fn start(
        tag: &'static str,
        mode: Mode,
        connections: usize,
        serve: impl FnOnce(&Lab, u16) -> Result<Vec<Server>>,
    ) -> Result<Self> {
        let lab = Nodes::network(tag, mode)?;
        let (web, echoes) = (lab.web_servers()?, serve(&lab, ECHO)?);
        let config = configuration(&lab, mode);
        let both = Nodes::start(lab, &config)?;
        let load = Load::open(&both.lab, ECHO, connections)?;
        std::thread::sleep(OLD);
        both.nodes[1].wait_until_it_holds_at_least(connections as u64)?;
        Ok(Self { load, both, mode, web, _echoes: echoes })
    }

    /// Something happens to the active node, and then the opposite. Returns a row for each.
    pub fn play(&mut self, event: &Event) -> Result<[Row; 2]> {
        let victim = self.both.active()?;
        let first = self.measure(event.name, |both| {
            let at = Instant::now();
            (event.happens)(both, victim)?;
            if event.moves {
                both.nodes[1 - victim].wait_until("active")?;
            }
            Ok(at)
        })?;
        let heir = self.both.nodes[if event.moves { 1 - victim } else { victim }].name.clone();
        ensure!(first.owners.contains(&heir), "{heir} does not have the addresses: {first}");
        let second = self.measure(event.name_of_end, |both| {
            let at = Instant::now();
            (event.ends)(both, victim)?;
            both.wait_until_one_is_active()?;
            Ok(at)
        })?;
        ensure!(second.owners.len() == 1, "not one node has the addresses: {second}");
        self.both.wait_until_both_share()?;
        Ok([first, second])
    }

    fn measure(&mut self, event: &str, happens: impl FnOnce(&mut Nodes) -> Result<Instant>) -> Result<Row> {
        let Self { load, both, mode, .. } = self;
        let client = both.lab.client.clone();
        let figures = load.during(&client, || happens(both))?;
        Ok(Row { event: event.to_owned(), mode: *mode, figures, owners: self.both.owners()? })
    }

    /// Closes all connections. An error if one of them has broken. Returns when both nodes know that they were closed.
    pub fn end(self) -> Result<()> {
        let clients = clients(&self.both)?;
        self.load.close()?;
        self.both.wait_until_none_has_flows_of("echo", &clients)
    }

    /// Leaves everything running but the load.
    pub fn keep(self) -> Result<Lab> {
        self.load.close()?;
        self.both.lab.keep()?;
        self.web.into_iter().for_each(Web::leave_running);
        let Nodes { nodes, lab } = self.both;
        nodes.into_iter().for_each(super::nodes::Node::leave_running);
        Ok(lab)
    }
}

/// The services `web` and `echo`.
fn configuration(lab: &Lab, mode: Mode) -> Config {
    let echo = Service::over(lab, "echo", Protocol::Tcp, mode, ECHO, ECHO);
    let mut config = Config::web(lab, mode).service(echo);
    for Service { health, keys, .. } in &mut config.services {
        (health.interval, health.timeout) = (CHECKS, CHECKS);
        // Of six, with both families: one that has lost all backends makes the service not ready.
        keys.push("quorum = 4");
    }
    config
}

/// The clients of open connections to the echo service.
fn clients(both: &Nodes) -> Result<Vec<String>> {
    let port = format!(":{ECHO}");
    let open = both.lab.client.run(&["ss", "-Htn", "state", "established", "dport", "=", &port])?;
    Ok(open.lines().filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned)).collect())
}
