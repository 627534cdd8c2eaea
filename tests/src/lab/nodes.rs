//! Two balancers of a group with keepalived, which gives the service's addresses and the sources to one of the two.
//!
//! ```text
//!   client ── edge ─┬─ lb-1 ─┬─ switch ─┬─ web-1
//!                   └─ lb-2 ─┘          └─ web-2 ..
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_common::service::Mode;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use super::{
    Config, Daemon, Family, Lab, Namespace, Pair, Shape, Topology,
    address::{self, inside},
    config::{Group, Peer},
    daemon::{self, binary},
    process::Program,
    wait::eventually,
};

/// keepalived waits for three advertisements, and starts slowly.
const TAKES_OVER: Duration = Duration::from_secs(20);
/// The port where the nodes meet.
const PORT: u16 = 4790;

/// The most flows that are listed.
const FLOWS: &str = "100000";

/// A balancer, whose processes may be dead.
pub struct Node {
    /// `lb-1` or `lb-2`.
    pub name: String,
    /// Its host.
    pub namespace: Namespace,
    directory: PathBuf,
    /// xlb.
    pub xlb: Daemon,
    keepalived: Program,
}

/// The lab, and both nodes. The first one is active at the start.
pub struct Nodes {
    /// `lb-1`, then `lb-2`.
    pub nodes: Vec<Node>,
    /// Dropped last.
    pub lab: Lab,
}

/// Whether a cable of a node works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// Plugged in.
    Up,
    /// Cut: neither end has a carrier.
    Down,
}

/// Whether the nodes reach each other; others reach both of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// They do.
    Full,
    /// Neither switch forwards between them.
    None,
}

impl Cable {
    /// As in `ip link set .. WORD`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl Nodes {
    /// The network. The servers must run before the nodes start.
    pub fn network(tag: &'static str, mode: Mode) -> Result<Lab> {
        Lab::build(&Topology::new(tag, Shape::Pair).mode(mode))
    }

    /// Starts both nodes, and waits until the first one is active and has told its flows.
    pub fn start(lab: Lab, config: &Config) -> Result<Self> {
        let ca = Authority::new(lab.directory())?;
        let places = [inside(1), inside(2)];
        let mut nodes = Vec::new();
        for (number, host) in (1..).zip(lab.balancers()) {
            let group = Some(ca.group(number, &places, |_| Vec::new())?);
            nodes.push(Node::start(&lab, number, host, &Config { group, ..config.clone() })?);
        }
        let mut both = Self { nodes, lab };
        for node in &both.nodes {
            node.xlb.wait_until_all_are_up()?;
            node.wait_until_it_has_learned()?;
        }
        both.nodes[0].start_keepalived()?;
        both.nodes[0].wait_until("active")?;
        both.nodes[1].start_keepalived()?;
        both.nodes[1].wait_until("standby")?;
        Ok(both)
    }

    /// Which of them is active.
    pub fn active(&self) -> Result<usize> {
        let states: Vec<_> = self.nodes.iter().map(Node::state).collect();
        let active = states.iter().position(|state| state.as_ref().is_ok_and(|it| it == "active"));
        active.with_context(|| format!("none is active: {states:?}"))
    }

    /// The names of the nodes that have the addresses.
    pub fn owners(&self) -> Result<Vec<String>> {
        let mut owners = Vec::new();
        for node in &self.nodes {
            if node.has_the_addresses()? {
                owners.push(node.name.clone());
            }
        }
        Ok(owners)
    }

    /// Waits until one of them, and only one, has the addresses.
    pub fn wait_until_one_is_active(&self) -> Result<()> {
        let is_one = || Ok(self.owners()?.len() == 1);
        eventually(TAKES_OVER, "one node has the addresses", is_one).map(drop)
    }

    /// Waits until each has all flows of the other.
    pub fn wait_until_both_share(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Node::wait_until_it_shares)
    }

    /// Waits until both know that the connections of these clients to a service were closed.
    pub fn wait_until_none_has_flows_of(&self, service: &str, clients: &[String]) -> Result<()> {
        for node in &self.nodes {
            let what = format!("{} has no flow of {service}", node.name);
            eventually(TAKES_OVER, &what, || {
                let flows = node.flows(service)?;
                Ok(!clients.iter().any(|client| flows.contains_key(client)))
            })?;
        }
        Ok(())
    }

    /// The router of the clients.
    pub fn edge(&self) -> Result<&Namespace> {
        self.lab.edge.as_ref().context("a lab without a router")
    }

    /// Cuts the cable between a node and the router, or repairs it.
    pub fn set_front(&self, node: usize, cable: Cable) -> Result<()> {
        self.edge()?.ip(&format!("link set {} {}\n", self.nodes[node].name, cable.word()))
    }

    /// The same with the cable to the switch.
    pub fn set_back(&self, node: usize, cable: Cable) -> Result<()> {
        self.lab.switch.ip(&format!("link set {} {}\n", self.nodes[node].name, cable.word()))
    }

    /// Lets the nodes see each other, or not.
    pub fn set_sight(&self, sight: Sight) -> Result<()> {
        let word = match sight {
            Sight::Full => "off",
            Sight::None => "on",
        };
        for bridge in [self.edge()?, &self.lab.switch] {
            for Node { name, .. } in &self.nodes {
                bridge.ip(&format!("link set {name} type bridge_slave isolated {word}\n"))?;
            }
        }
        Ok(())
    }

    /// The host dies, at once: its cables, its processes, its addresses, the XDP program and the tables.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.set_front(node, Cable::Down)?;
        self.set_back(node, Cable::Down)?;
        self.nodes[node].lose_everything()
    }

    /// The host has started again. Returns when it is a standby with the flows of the other node.
    pub fn bring_back(&mut self, node: usize) -> Result<()> {
        self.set_front(node, Cable::Up)?;
        self.set_back(node, Cable::Up)?;
        let node = &mut self.nodes[node];
        node.xlb.start_again()?;
        node.xlb.wait_until_all_are_up()?;
        node.wait_until_it_has_learned()?;
        node.start_keepalived()?;
        node.wait_until("standby")
    }
}

impl Node {
    /// Starts xlb on a balancer.
    pub fn start(lab: &Lab, number: u8, host: &Namespace, config: &Config) -> Result<Self> {
        let xlb = if *host == lab.xlb { lab.start(config)? } else { lab.start_another(host, config)? };
        let directory = xlb.config_path().parent().context("a file in no directory")?.to_owned();
        let name = format!("lb-{number}");
        Ok(Self { name, namespace: host.clone(), directory, xlb, keepalived: Program::default() })
    }

    /// `active`, `partial` or `standby`.
    pub fn state(&self) -> Result<String> {
        let status = self.xlb.json(&["status"])?;
        Ok(status["node"]["state"].as_str().context("a status without a state")?.to_owned())
    }

    /// Waits until it is active, or standby.
    pub fn wait_until(&self, state: &str) -> Result<()> {
        let what = format!("{} is {state}", self.name);
        eventually(TAKES_OVER, &what, || Ok(self.state()? == state)).map(drop)
    }

    /// What it says of the other node.
    pub fn peer(&self) -> Result<Value> {
        Ok(self.xlb.json(&["group", "status"])?["peers"][0].clone())
    }

    /// Waits until it has all flows of its peers, and they have its own.
    pub fn wait_until_it_shares(&self) -> Result<()> {
        let what = format!("{} has all flows of its peers", self.name);
        let mut status = Value::Null;
        let waited = eventually(TAKES_OVER, &what, || {
            status = self.xlb.json(&["group", "status"])?;
            let shares =
                |peer: &Value| ["receiving", "complete", "sending"].iter().all(|it| peer[it] == true);
            Ok(status["peers"].as_array().is_some_and(|peers| peers.iter().all(shares)))
        });
        waited.map(drop).with_context(|| status.to_string())
    }

    /// Waits until it has the flows of the other node, if that can be reached.
    pub fn wait_until_it_has_learned(&self) -> Result<()> {
        let what = format!("{} has learned the flows of its peers", self.name);
        let learned = || Ok(self.xlb.json(&["group", "status"])?["learning"] == false);
        eventually(TAKES_OVER, &what, learned).map(drop)
    }

    /// Waits until it holds at least this number of flows of the other node.
    pub fn wait_until_it_holds_at_least(&self, flows: u64) -> Result<()> {
        let what = format!("{} holds {flows} flows of its peer", self.name);
        let holds = || Ok(self.peer()?["flows_held"].as_u64().is_some_and(|held| held >= flows));
        eventually(TAKES_OVER, &what, holds)
            .map(drop)
            .with_context(|| format!("{}", self.peer().unwrap_or_default()))
    }

    /// Its open flows of a service: the client, and what the node knows of it.
    pub fn flows(&self, service: &str) -> Result<BTreeMap<String, String>> {
        let listed = self.xlb.json(&["flow", "list", "--service", service, "--limit", FLOWS])?;
        let open = listed.as_array().into_iter().flatten();
        let open = open.filter(|flow| flow["state"] == "established" || flow["state"] == "closing");
        Ok(open
            .map(|flow| {
                let known = ["listen", "backend_address", "source"].map(|key| flow[key].to_string());
                (flow["client"].as_str().unwrap_or_default().to_owned(), known.join(" "))
            })
            .collect())
    }

    /// Starts keepalived with what `xlb ha keepalived` prints.
    pub fn start_keepalived(&mut self) -> Result<()> {
        let fragment = self.directory.join("keepalived.conf");
        let (program, config) =
            (binary()?.display().to_string(), self.xlb.config_path().display().to_string());
        let socket = self.directory.join("xlb.sock").display().to_string();
        let gateways = ["10.0.0.1/24", "fd00::1/64"];
        let mut words = vec![program.as_str(), "--socket", &socket, "ha", "keepalived", &config];
        if fs::read_to_string(&config)?.contains("mode = \"nat\"") {
            gateways.iter().for_each(|gateway| words.extend(["--also", gateway]));
        }
        fs::write(&fragment, self.namespace.run(&words)?)?;
        let pids = ["keepalived.pid", "vrrp.pid"].map(|name| self.directory.join(name));
        // A killed process may be a zombie for seconds, if process 1 is slow to reap it. keepalived takes it for a daemon that
        // runs, and ends.
        pids.iter().filter(|file| file.exists()).try_for_each(fs::remove_file)?;
        let log = File::options().create(true).append(true).open(self.directory.join("keepalived.log"))?;
        let mut command = self.namespace.command("keepalived");
        command
            .args(["--dont-fork", "--vrrp", "--log-console", "--log-detail"])
            .args(["--use-file", &fragment.display().to_string()])
            .arg("--pid")
            .arg(&pids[0])
            .arg("--vrrp_pid")
            .arg(&pids[1])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let started = command.spawn().context("start keepalived; `cargo xtask setup` installs it")?;
        self.keepalived = started.into();
        Ok(())
    }

    /// Kills keepalived, both of its processes, so that neither can take the addresses off.
    pub fn kill_keepalived(&mut self) -> Result<()> {
        let parent = self.keepalived.pid()?;
        let file = self.directory.join("vrrp.pid");
        let child = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        // The parent would start another child; the child would leave in order if its parent were gone.
        kill(parent, Signal::SIGSTOP)?;
        kill(Pid::from_raw(child.trim().parse()?), Signal::SIGKILL)?;
        self.keepalived.kill()
    }

    /// Stops keepalived in order.
    pub fn stop_keepalived(&mut self) -> Result<()> {
        kill(self.keepalived.pid()?, Signal::SIGTERM)?;
        self.keepalived.wait()
    }

    /// Sends a signal to all processes.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        for pid in self.namespace.pids()? {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        Ok(())
    }

    /// The health checks of this node get no answers; what XDP forwards does.
    pub fn lose_sight(&self) -> Result<()> {
        let rules = "add table inet blind; \
             add chain inet blind output { type filter hook output priority 0; }; \
             add rule inet blind output tcp dport { 7, 8080 } drop";
        self.namespace.run(&["nft", rules]).map(drop)
    }

    /// Ends [`Self::lose_sight`].
    pub fn see_again(&self) -> Result<()> {
        self.namespace.run(&["nft", "delete table inet blind"]).map(drop)
    }

    /// Does its host have the address of the services?
    pub fn has_the_addresses(&self) -> Result<bool> {
        let shown = self.namespace.run(&[
            "ip",
            "-json",
            "address",
            "show",
            "to",
            &address::SERVICE.v4.to_string(),
        ])?;
        let interfaces: Vec<Value> = serde_json::from_str(&shown)?;
        Ok(interfaces.iter().any(|it| it["ifname"].is_string()))
    }

    /// Lets its programs outlive this process.
    pub fn leave_running(self) {
        self.keepalived.leave_running();
        self.xlb.leave_running();
    }

    /// What the host loses when it dies: its processes, its addresses, the XDP program and the tables.
    pub fn lose_everything(&mut self) -> Result<()> {
        self.signal_all(Signal::SIGKILL)?;
        self.keepalived.kill()?;
        self.xlb.kill()?;
        fs::remove_dir_all(daemon::pins(&self.directory)).context("remove the pins")?;
        for family in Family::ALL {
            let option = if family == Family::V4 { "-4" } else { "-6" };
            for pair in [address::SERVICE, address::SOURCE] {
                let address = pair.of(family).to_string();
                self.namespace.run(&["ip", option, "address", "flush", "to", &address])?;
            }
            self.namespace.run(&["ip", option, "address", "flush", "dev", "lo", "scope", "global"])?;
        }
        Ok(())
    }
}

/// Signs the certificates of the nodes.
pub struct Authority {
    directory: PathBuf,
    /// Its own certificate.
    pub file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Its files are in this directory.
    pub fn new(directory: &Path) -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?;
        let file = directory.join("ca.pem");
        fs::write(&file, certificate.pem())?;
        Ok(Self { directory: directory.to_owned(), file, issuer: Issuer::new(parameters, key) })
    }

    /// The section of node `number`, counted from 1, of as many nodes as there are `places`, where they meet. A peer sends
    /// from `sources`.
    pub fn group(&self, number: u8, places: &[Pair], sources: impl Fn(u8) -> Vec<IpAddr>) -> Result<Group> {
        let name = |number: u8| format!("lb-{number}");
        let [cert, key] = self.issue(&name(number))?;
        let place = |pair: &Pair| (pair.v4, PORT).into();
        let mut group = Group {
            node: name(number),
            listen: ([0; 4], PORT).into(),
            cert,
            key,
            ca: self.file.clone(),
            peers: Vec::new(),
        };
        for (other, pair) in (1..).zip(places) {
            if other == number {
                group.listen = place(pair);
            } else {
                group.peers.push(Peer { node: name(other), address: place(pair), sources: sources(other) });
            }
        }
        Ok(group)
    }

    /// The files of a node's certificate and key.
    pub fn issue(&self, node: &str) -> Result<[PathBuf; 2]> {
        ensure!(!node.contains('/'), "{node} is not a name");
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([node.to_owned()])?.signed_by(&key, &self.issuer)?;
        let [cert_file, key_file] = ["pem", "key"].map(|end| self.directory.join(format!("{node}.{end}")));
        fs::write(&cert_file, certificate.pem())?;
        fs::write(&key_file, key.serialize_pem())?;
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600))?;
        Ok([cert_file, key_file])
    }
}
