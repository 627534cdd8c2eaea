//! The lab: hosts made of network namespaces, the real `xlb`, real web servers, real clients.
//!
//! ```text
//!   Lab::build(&Topology::new("demo", Shape::TwoNics))
//!     namespaces   xlb-demo-PID-{client,xlb,switch,web-1,..}          topology, link, address
//!     files        /run/xlb-lab/xlb-demo-PID/{bpf,state,xlb.toml,..}  sweep
//!   lab.start(&config)   the daemon                                   config, daemon, metrics
//!   lab.web_servers()    nginx on each backend                        web
//!   many                 thousands of services over those             many
//!   MariaDb, Redis       a database server on a backend               mariadb, redis
//!   database::Scene      a database cluster with its application  database, postgres
//!   TcpEcho, UdpEcho     other servers, as threads in a namespace     echo
//!   hostile::start      servers that answer wrongly                      hostile
//!   visit, Live          clients, as threads in a namespace           visit, live
//!   Flood                forged clients                               flood
//!   Capture              verifies every checksum that passes          capture
//!   Nodes                two balancers, keepalived, a group           nodes
//!   Trio                 three balancers, BIRD, a group               trio, bird
//!   failover::Scene      those under load, and events                 failover
//!   Etcd                 three members of etcd                        etcd
//! ```
//!
//! A lab touches nothing outside its own namespaces and directory, and dropping it removes both. The next lab removes
//! what a killed process left behind.

pub mod address;
pub mod bird;
pub mod capture;
pub mod certificate;
pub mod command;
pub mod config;
pub mod daemon;
pub mod database;
pub mod demo;
pub mod echo;
pub mod etcd;
pub mod failover;
pub mod flapping;
pub mod flood;
pub mod hostile;
pub mod link;
pub mod live;
pub mod many;
pub mod mariadb;
pub mod metrics;
pub mod namespace;
pub mod nftables;
pub mod nodes;
pub mod pass;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod rush;
pub mod story;
pub mod sweep;
pub mod topology;
pub mod trio;
pub mod visit;
pub mod wait;
pub mod web;

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    ops::{Deref, RangeInclusive},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Uid,
};

pub use self::{
    address::{Family, Pair},
    capture::Capture,
    config::Config,
    daemon::Daemon,
    echo::Server,
    live::Live,
    mariadb::MariaDb,
    namespace::Namespace,
    redis::Redis,
    topology::{Backend, Network, Shape, Topology},
    visit::{Tally, Visit, visit, visit_while},
    wait::eventually,
    web::{Encryption, Web},
};

static ALONE: Mutex<()> = Mutex::new(());

/// Allows one lab at a time in this process: many tests measure time.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A network of namespaces with a place for files. Dropping it removes everything.
pub struct Lab {
    network: Network,
    name: String,
    directory: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    /// Builds the network. Waits while another thread of this process has a lab.
    pub fn build(topology: &Topology) -> Result<Self> {
        ensure!(Uid::effective().is_root(), "the lab needs root: run it through `cargo xtask test lab`");
        ensure!(!topology.tag.contains('-'), "the tag `{}` contains a hyphen", topology.tag);
        let alone = alone();
        sweep::sweep()?;
        allow_many_sockets()?;

        let name = format!("xlb-{}-{}", topology.tag, std::process::id());
        let directory = sweep::directory(&name);
        let bpffs = directory.join(sweep::BPFFS);
        fs::create_dir_all(&bpffs).with_context(|| format!("make {}", bpffs.display()))?;
        let built = mount_bpffs(&bpffs).and_then(|()| Network::build(&name, topology));
        let network = built.inspect_err(|_| drop(sweep::remove(&name)))?;
        let lab = Self { network, name, directory, _alone: alone };
        lab.let_answers_pass(topology.shape)?;
        Ok(lab)
    }

    /// What a balancer sends out where it came in arrives at these ports of switches.
    fn let_answers_pass(&self, shape: Shape) -> Result<()> {
        let bpffs = self.directory.join(sweep::BPFFS);
        let bridges: &[Option<&Namespace>] = match shape {
            Shape::TwoNics | Shape::Routers => &[],
            Shape::OneNic => return pass::pass_everything((&self.switch, "xlb"), &bpffs),
            Shape::Pair => &[self.edge.as_ref(), Some(&self.switch)],
            Shape::Trio => &[self.edge.as_ref()],
        };
        let bridges = bridges.iter().flatten();
        let mut ends = bridges.flat_map(|&bridge| shape.balancers().iter().map(move |&port| (bridge, port)));
        ends.try_for_each(|end| pass::pass_everything(end, &bpffs))
    }

    /// `xlb-TAG-PID`: the prefix of the names of all its namespaces.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of the lab's files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The configuration file of the daemon.
    pub fn config_path(&self) -> PathBuf {
        daemon::config_path(&self.directory)
    }

    /// The pins of the daemon.
    pub fn pins(&self) -> PathBuf {
        daemon::pins(&self.directory)
    }

    /// The names of the daemon's pins. None if their directory is gone.
    pub fn pin_names(&self) -> Result<BTreeSet<String>> {
        let directory = self.pins();
        if !directory.exists() {
            return Ok(BTreeSet::new());
        }
        let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// The log of all runs of the daemon.
    pub fn log(&self) -> Result<String> {
        let path = daemon::log_path(&self.directory);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Writes a password to a file that only its owner can read. Returns the key `password_file`.
    pub fn password_file(&self, password: &str) -> Result<String> {
        let path = self.directory.join("check.password");
        fs::write(&path, password).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(format!("password_file = \"{}\"", path.display()))
    }

    /// Starts nginx on every backend.
    pub fn web_servers(&self) -> Result<Vec<Web>> {
        self.web_servers_on(web::PORT..=web::PORT)
    }

    /// The same on many ports.
    pub fn web_servers_on(&self, ports: RangeInclusive<u16>) -> Result<Vec<Web>> {
        self.web_servers_with(ports, None)
    }

    /// The same with https.
    pub fn web_servers_with(
        &self,
        ports: RangeInclusive<u16>,
        encryption: Option<&Encryption>,
    ) -> Result<Vec<Web>> {
        let start = |backend| Web::start(backend, ports.clone(), encryption, &self.directory);
        self.backends.iter().map(start).collect()
    }

    /// A TCP echo server on every backend, in both families.
    pub fn tcp_echoes(&self, port: u16) -> Result<Vec<Server>> {
        self.on_each_backend(|backend, family| {
            echo::tcp_echo(&backend.namespace, backend.address.port(family, port))
        })
    }

    /// A UDP echo server on every backend, in both families, which answers with the backend's name.
    pub fn udp_echoes(&self, port: u16) -> Result<Vec<Server>> {
        self.on_each_backend(|backend, family| {
            echo::udp_echo(&backend.namespace, backend.address.port(family, port), &backend.name)
        })
    }

    /// The client's addresses of a family.
    pub fn client_addresses(&self, family: Family) -> Vec<IpAddr> {
        self.clients.iter().map(|client| client.of(family)).collect()
    }

    /// Visits `port` of [`address::SERVICE`] this many times, from all client addresses in turn.
    pub fn visit(&self, family: Family, port: u16, connections: usize) -> Result<Tally> {
        let to = address::SERVICE.port(family, port);
        visit(&self.client, &Visit::new(&self.client_addresses(family), to, connections))
    }

    /// Visits repeatedly while a condition holds.
    pub fn visit_while(&self, family: Family, port: u16, goes_on: impl Fn() -> bool + Sync) -> Result<Tally> {
        let to = address::SERVICE.port(family, port);
        let endless = Visit::new(&self.client_addresses(family), to, usize::MAX);
        visit_while(&self.client, &endless, goes_on)
    }

    /// Opens this many long-lived connections to `port` of [`address::SERVICE`].
    pub fn live(&self, family: Family, port: u16, connections: usize) -> Result<Live> {
        let to = address::SERVICE.port(family, port);
        Live::open(&self.client, &self.client_addresses(family), to, connections)
    }

    /// Writes the configuration file and starts the daemon on it; returns when it answers.
    pub fn start(&self, config: &Config) -> Result<Daemon> {
        Daemon::start(&self.xlb, &self.directory, config)
    }

    /// Starts another daemon in a namespace of the lab, with files and pins of its own.
    pub fn start_another(&self, namespace: &Namespace, config: &Config) -> Result<Daemon> {
        let (directory, pins) =
            (self.directory.join(namespace.name()), self.directory.join(sweep::BPFFS).join(namespace.name()));
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        fs::create_dir(&pins).with_context(|| format!("make {}", pins.display()))?;
        symlink(&pins, directory.join(sweep::BPFFS))?;
        Daemon::start(namespace, &directory, config)
    }

    /// Verifies the checksums of what arrives at the client and at each backend, from now on.
    pub fn capture(&self) -> Result<Capture> {
        let ends = self.backends.iter().map(|backend| &backend.namespace).chain([&self.client]);
        Capture::watch(ends.map(|namespace| (namespace, "eth0")))
    }

    fn on_each_backend<T>(&self, start: impl Fn(&Backend, Family) -> Result<T>) -> Result<Vec<T>> {
        let all = self.backends.iter().flat_map(|backend| Family::ALL.map(|family| (backend, family)));
        all.map(|(backend, family)| start(backend, family)).collect()
    }

    /// Lets the lab outlive this process; [`sweep::kept`] finds it.
    pub fn keep(&self) -> Result<()> {
        Ok(fs::write(self.directory.join(sweep::KEPT), "")?)
    }
}

impl Deref for Lab {
    type Target = Network;

    fn deref(&self) -> &Network {
        &self.network
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", daemon::log_tail(&self.directory));
        }
        if self.directory.join(sweep::KEPT).exists() {
            return;
        }
        if let Err(error) = sweep::remove(&self.name) {
            eprintln!("remove the lab {}: {error:#}", self.name);
        }
    }
}

/// The root of this workspace.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Mounts a bpffs for the lab's pins, which all go when it is unmounted.
fn mount_bpffs(at: &Path) -> Result<()> {
    mount(Some("bpf"), at, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount a bpffs on {}", at.display()))
}

/// Servers and clients of thousands of connections live in this process.
fn allow_many_sockets() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}
