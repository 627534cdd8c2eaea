//! One node that serves live connections, and a host in the place of its peer.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{net::Protocol, service::Mode};
use lb_userspace::{
    group::wire::{Flow, Frame},
    spec,
};
use serde_json::Value;
use tests::lab::{
    Config, Family, Lab, Live, Server, Shape, Topology, Web,
    address::{self, inside},
    config::{Group, Service},
    link,
    nodes::{Authority, Node},
    rush::Rush,
    wait::join,
};

use super::impostor::{Impostor, papers};

/// The ports of the services. `spare` has the backends of `echo`.
pub const ECHO: u16 = 7;
pub const SPARE: u16 = 9;
pub const WEB: u16 = 80;
/// Live connections to `echo`, over both families: most of them with a byte every 100 ms, some every 1.5 s: longer than
/// two nodes may both have a flow.
pub const CONNECTIONS: usize = 2 * (BUSY.1 + SILENT.1);
const BUSY: (Duration, usize) = (Duration::from_millis(100), 90);
const SILENT: (Duration, usize) = (Duration::from_millis(1_500), 10);
/// New connections a second.
const RATE: u32 = 50;
/// A connection that does not answer for so long is broken.
const BROKEN: Duration = Duration::from_secs(5);

/// See the [module](self).
pub struct Scene {
    live: Vec<Live>,
    pub node: Node,
    pub impostor: Impostor,
    /// Signs the certificates of both.
    pub ca: Authority,
    /// The section of the peer.
    pub peer: Group,
    config: Config,
    _servers: (Vec<Server>, Vec<Web>),
    /// Dropped last.
    pub lab: Lab,
}

impl Scene {
    /// Returns when all connections are open.
    pub fn start(tag: &'static str) -> Result<Self> {
        let lab = Lab::build(&Topology::new(tag, Shape::Pair))?;
        let servers = (lab.tcp_echoes(ECHO)?, lab.web_servers()?);
        link::address((&lab.xlb, "eth0"), address::SERVICE)?;
        link::address((&lab.xlb, "eth1"), address::SOURCE)?;
        let ca = Authority::new(lab.directory())?;
        let places = [inside(1), inside(2)];
        let own = ca.group(1, &places, |_| Vec::new())?;
        let peer = ca.group(2, &places, |_| Vec::new())?;
        let host = lab.others.first().context("a lab without a second balancer")?;
        let impostor = Impostor { namespace: host.clone(), address: peer.listen, node: own.listen };
        let service = |name, port| Service::over(&lab, name, Protocol::Tcp, Mode::FullNat, port, ECHO);
        let config = Config::web(&lab, Mode::FullNat).service(service("echo", ECHO));
        let config = config.service(service("spare", SPARE));
        let node = Node::start(&lab, 1, &lab.xlb, &Config { group: Some(own), ..config.clone() })?;
        node.xlb.wait_until_all_are_up()?;
        node.wait_until("active")?;
        let mut scene = Self { live: Vec::new(), node, impostor, ca, peer, config, _servers: servers, lab };
        for family in Family::ALL {
            scene.live.push(scene.open(ECHO, family, BUSY)?);
            scene.live.push(scene.open(ECHO, family, SILENT)?);
        }
        Ok(scene)
    }

    /// Opens live connections.
    pub fn open(&self, port: u16, family: Family, (interval, count): (Duration, usize)) -> Result<Live> {
        let to = address::SERVICE.port(family, port);
        Live::open_at(interval, &self.lab.client, (&self.lab.client_addresses(family), to), count)
    }

    /// The certificate of the peer.
    pub fn papers(&self) -> spec::Group {
        papers(&self.peer, &self.ca.file)
    }

    /// Acts while new connections begin. All are served, and the live ones go on.
    pub fn under_load(&self, acts: impl FnOnce() -> Result<()>) -> Result<()> {
        let ways_of = |family| {
            let to = address::SERVICE.port(family, WEB);
            self.lab.client_addresses(family).into_iter().map(move |from| (from, to))
        };
        let ways = Family::ALL.into_iter().flat_map(ways_of).collect();
        let rush = Rush { ways, per_second: RATE, limit: BROKEN };
        let client = &self.lab.client;
        let (acted, opened) = beside(acts, |goes_on| rush.run(client, goes_on));
        acted?;
        let opened = opened?;
        let failed: Vec<_> = opened.iter().filter(|it| it.answer.is_none()).collect();
        ensure!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), opened.len(), failed[0]);
        eprintln!("{} new connections were served meanwhile", opened.len());
        self.all_are_alive()
    }

    /// Each live connection echoes a byte that it sends from now on.
    pub fn all_are_alive(&self) -> Result<()> {
        let alive: usize = self.live.iter().map(|live| live.count_alive(BROKEN)).sum::<Result<_>>()?;
        ensure!(alive == CONNECTIONS, "{alive} of {CONNECTIONS} live connections are left");
        Ok(())
    }

    /// Returns the longest time that `xlb status` took while this ran.
    pub fn while_it_answers(&self, acts: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let (acted, slowest) = beside(acts, |goes_on| {
            let mut slowest = Duration::ZERO;
            while goes_on() {
                let asked = Instant::now();
                self.node.xlb.run(&["status"])?;
                slowest = slowest.max(asked.elapsed());
            }
            Ok(slowest)
        });
        acted?;
        slowest
    }

    /// The flows of a service, as the node tells its peer of them.
    pub fn flows_of(&self, port: u16) -> Result<Vec<Flow>> {
        let flows = self.impostor.flows(&self.papers())?;
        Ok(flows.into_iter().filter(|flow| flow.listen_port == u32::from(port)).collect())
    }

    /// The peer sends these frames. Returns what the node says of it when it has handled them.
    pub fn tell(&self, frames: Vec<Frame>) -> Result<Value> {
        let before = self.node.peer()?;
        let count = |peer: &Value, key: &str| peer[key].as_u64().unwrap_or_default();
        let flows: usize = frames.iter().map(|frame| frame.flows.len()).sum();
        let ended: usize = frames.iter().map(|frame| frame.ended.len()).sum();
        let rounds = frames.iter().any(|frame| frame.round.is_some());
        let mut peer = Value::Null;
        self.impostor.tell(&self.papers(), frames, || {
            peer = self.node.peer()?;
            let more = |key| count(&peer, key) - count(&before, key);
            let has_all =
                more("flows_received_total") == flows as u64 && more("flows_ended_total") == ended as u64;
            Ok(has_all && (!rounds || peer["complete"] == true))
        })?;
        Ok(peer)
    }

    /// No flow in the tables is of another client.
    pub fn has_flows_of_its_clients_alone(&self) -> Result<()> {
        let clients: Vec<_> =
            Family::ALL.into_iter().flat_map(|family| self.lab.client_addresses(family)).collect();
        let flows = self.node.xlb.json(&["flow", "list", "--limit", "100000"])?;
        let flows = flows.as_array().context("`xlb flow list` prints no list")?;
        ensure!(flows.len() >= CONNECTIONS, "{} flows", flows.len());
        for flow in flows {
            let client: SocketAddr = flow["client"].as_str().context("a flow without a client")?.parse()?;
            ensure!(clients.contains(&client.ip()), "{flow}");
        }
        Ok(())
    }

    /// A true peer comes, and gets at least this number of flows. Then the live connections end, unbroken.
    pub fn end_beside_a_true_peer(self, flows: usize) -> Result<()> {
        let config = Config { group: Some(self.peer.clone()), ..self.config.clone() };
        let peer = Node::start(&self.lab, 2, &self.impostor.namespace, &config)?;
        self.node.wait_until_it_shares()?;
        peer.wait_until_it_holds_at_least(flows as u64)?;
        self.all_are_alive()?;
        self.live.into_iter().try_for_each(|live| live.finish_unbroken().map(drop))
    }
}

/// Acts, and meanwhile does something else until that is over.
fn beside<T: Send>(
    acts: impl FnOnce() -> Result<()>,
    work: impl FnOnce(&(dyn Fn() -> bool + Send + Sync)) -> Result<T> + Send,
) -> (Result<()>, Result<T>) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let working = scope.spawn(|| work(&|| !is_over.load(Relaxed)));
        let acted = acts();
        is_over.store(true, Relaxed);
        (acted, join(working))
    })
}
