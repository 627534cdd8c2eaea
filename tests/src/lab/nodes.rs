//! Two balancers of a group on one Ethernet, with keepalived.
//!
//! ```text
//!   client ─┐                       ┌─ web-1
//!           ├─ switch ──────────────┼─ web-2
//!   lb-1 ───┤   keepalived gives    └─ web-3
//!   lb-2 ───┘   the service's address and the source to one of the two
//! ```

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_common::service::Mode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use super::{
    Config, Daemon, Lab, Namespace, Pair, Shape, Topology, address,
    config::{Group, Peer},
    daemon::binary,
    link, pass,
    process::Program,
    sweep,
    wait::eventually,
};

/// keepalived waits for three advertisements, and starts slowly.
const TAKES_OVER: Duration = Duration::from_secs(20);
/// The port where the nodes meet.
const PORT: u16 = 4790;

/// A balancer, whose processes may be dead.
pub struct Node {
    /// `lb-1` or `lb-2`.
    pub name: String,
    /// Its host.
    pub namespace: Namespace,
    /// Its port of the switch.
    port: String,
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

impl Nodes {
    /// The network, with one node's host. The servers must run before the nodes start.
    pub fn network(tag: &'static str, mode: Mode) -> Result<Lab> {
        Lab::build(&Topology::new(tag, Shape::OneNic).mode(mode))
    }

    /// Starts both nodes, and waits until the first one is active and has told its flows.
    pub fn start(lab: Lab, config: &Config) -> Result<Self> {
        let ca = Authority::new(lab.directory())?;
        let hosts = [lab.xlb.clone(), plug_in(&lab)?];
        let mut nodes = Vec::new();
        for (number, host) in (1..).zip(hosts) {
            readdress(&host, number)?;
            let config = Config { group: Some(group(number, &ca)?), ..config.clone() };
            let is_first = number == 1;
            let xlb = if is_first { lab.start(&config)? } else { lab.start_another(&host, &config)? };
            let directory = xlb.config_path().parent().context("a file in no directory")?.to_owned();
            let port = if is_first { "xlb" } else { "other" }.to_owned();
            let name = format!("lb-{number}");
            let node = Node { name, namespace: host, port, directory, xlb, keepalived: Program::default() };
            nodes.push(node);
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
}

impl Node {
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

    /// Waits until it has the flows of the other node, if that can be reached.
    pub fn wait_until_it_has_learned(&self) -> Result<()> {
        let what = format!("{} has learned the flows of its peers", self.name);
        let learned = || Ok(self.xlb.json(&["group", "status"])?["learning"] == false);
        eventually(TAKES_OVER, &what, learned).map(drop)
    }

    /// Waits until it holds this many flows of the other node.
    pub fn wait_until_it_holds(&self, flows: u64) -> Result<()> {
        let what = format!("{} holds {flows} flows of its peer", self.name);
        let waited = eventually(TAKES_OVER, &what, || Ok(self.peer()?["flows_held"] == flows));
        waited.map(drop).with_context(|| format!("{}", self.peer().unwrap_or_default()))
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
        let log = File::options().create(true).append(true).open(self.directory.join("keepalived.log"))?;
        let pid = |name: &str| self.directory.join(name).display().to_string();
        let mut command = self.namespace.command("keepalived");
        command
            .args(["--dont-fork", "--vrrp", "--log-console", "--log-detail"])
            .args(["--use-file", &fragment.display().to_string()])
            .args(["--pid", &pid("keepalived.pid"), "--vrrp_pid", &pid("vrrp.pid")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let started = command.spawn().context("start keepalived; `cargo xtask setup` installs it")?;
        self.keepalived = started.into();
        Ok(())
    }

    /// The host dies: its processes, at once, and its link.
    pub fn die(&mut self, switch: &Namespace) -> Result<()> {
        switch.ip(&format!("link set {} down\n", self.port))?;
        for pid in self.namespace.pids()? {
            // It may have ended by itself.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        self.keepalived.kill()?;
        self.xlb.kill()
    }

    /// The host is there again, without the addresses, and with the program that was pinned.
    pub fn come_back(&mut self, switch: &Namespace) -> Result<()> {
        let addresses = [address::SERVICE, address::SOURCE];
        for address in addresses {
            for (option, word) in [("-4", address.v4.to_string()), ("-6", address.v6.to_string())] {
                let shown =
                    self.namespace.run(&["ip", option, "-oneline", "address", "show", "to", &word])?;
                for line in shown.lines() {
                    let with_length = line.split_whitespace().nth(3).context("a line without an address")?;
                    self.namespace.ip(&format!("address del {with_length} dev eth0\n"))?;
                }
            }
        }
        switch.ip(&format!("link set {} up\n", self.port))?;
        self.xlb.start_again()?;
        self.xlb.wait_until_all_are_up()?;
        self.wait_until_it_has_learned()?;
        self.start_keepalived()
    }
}

/// A host like that of the lab's xlb.
fn plug_in(lab: &Lab) -> Result<Namespace> {
    let other = Namespace::create(format!("{}-other", lab.name()))?;
    other.sysctl("net.ipv4.ip_forward", "1")?;
    other.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    link::veth((&other, "eth0"), (&lab.switch, "other"))?;
    link::behave_as_a_nic((&lab.switch, "other"))?;
    lab.switch.ip("link set other master br0\n")?;
    pass::pass_everything((&lab.switch, "other"), &lab.directory().join(sweep::BPFFS))?;
    Ok(other)
}

/// Gives a node addresses of its own, instead of those that keepalived brings.
fn readdress(host: &Namespace, number: u8) -> Result<()> {
    host.run(&["ip", "address", "flush", "dev", "eth0", "scope", "global"])?;
    for pair in [outside(number), inside(number)] {
        link::address((host, "eth0"), pair)?;
    }
    Ok(())
}

const fn outside(number: u8) -> Pair {
    Pair::new([192, 0, 2, 1 + number], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + number as u16])
}

const fn inside(number: u8) -> Pair {
    Pair::new([10, 0, 0, 1 + number], [0xfd00, 0, 0, 0, 0, 0, 0, 1 + number as u16])
}

fn group(number: u8, ca: &Authority) -> Result<Group> {
    let other = 3 - number;
    let name = format!("lb-{number}");
    let [cert, key] = ca.issue(&name)?;
    let listen = (inside(number).v4, PORT).into();
    let peer =
        Peer { node: format!("lb-{other}"), address: (inside(other).v4, PORT).into(), sources: Vec::new() };
    Ok(Group { node: name, listen, cert, key, ca: ca.file.clone(), peers: vec![peer] })
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
