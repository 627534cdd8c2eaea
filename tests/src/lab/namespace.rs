//! Network namespaces: each is a host of the lab.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    panic,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tokio::runtime;

use super::command::{self, Output};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// A named namespace. A handle: dropping it removes nothing, the lab does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates a namespace in which addresses are usable at once.
    pub fn create(name: String) -> Result<Self> {
        command::run(&["ip", "netns", "add", &name])?;
        let namespace = Self { name };
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "0")?;
        // Duplicate address detection makes an address wait for a second; there are no duplicates here.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), "0")?;
            namespace.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The namespace of this name, made by another process.
    pub fn existing(name: String) -> Self {
        Self { name }
    }

    /// Its name, as in `ip netns exec NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs lines of `ip` (iproute2), in order.
    pub fn ip(&self, lines: &str) -> Result<()> {
        command::run_with_input(&["ip", "-n", &self.name, "-batch", "-"], lines).map(drop)
    }

    /// Sets a `net.*` variable.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // /proc/sys/net shows the namespace of the thread that opens it.
        let file = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.inside(|| fs::write(&file, value).with_context(|| format!("set {key} to {value}")))
    }

    /// Runs a command in here to its end, with any exit code.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        command::output(&[&["ip", "netns", "exec", &self.name], words].concat())
    }

    /// Runs a command in here that must succeed, and returns what it wrote.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        command::run(&[&["ip", "netns", "exec", &self.name], words].concat())
    }

    /// A command to start in here. `ip netns exec` becomes the program: the child's pid is the program's own.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program.as_ref());
        command
    }

    /// Does `work` in a thread of this namespace. A socket stays in the namespace where it was made.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| scope.spawn(|| self.enter().and_then(|()| work())).join())
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
            .with_context(|| format!("in {self}"))
    }

    /// Does asynchronous `work` in a thread of this namespace.
    pub fn block_on<T: Send, F: Future<Output = Result<T>>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> Result<T> {
        self.inside(|| runtime::Builder::new_current_thread().enable_all().build()?.block_on(work()))
    }

    /// Begins `work` in a thread of this namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let namespace = self.clone();
        thread::spawn(move || namespace.enter().and_then(|()| work()))
    }

    /// The XDP programs of its interfaces, as the kernel numbers them.
    pub fn programs(&self) -> Result<BTreeMap<String, u64>> {
        let links: Vec<Value> =
            serde_json::from_str(&self.run(&["ip", "-json", "-details", "link", "show"])?)?;
        let program =
            |link: &Value| Some((link["ifname"].as_str()?.to_owned(), link["xdp"]["prog"]["id"].as_u64()?));
        Ok(links.iter().filter_map(program).collect())
    }

    /// The processes in here.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let pids = command::run(&["ip", "netns", "pids", &self.name])?;
        pids.split_whitespace().map(|pid| Ok(pid.parse()?)).collect()
    }

    /// Silently drops every packet that arrives, like a host that crashed while its cable has a carrier.
    pub fn silence(&self) -> Result<()> {
        let rules = "add table inet silence; \
             add counter inet silence syns; \
             add chain inet silence input { type filter hook input priority 0; policy drop; }; \
             add rule inet silence input tcp flags & (syn | ack) == syn counter name syns";
        self.run(&["nft", rules]).map(drop)
    }

    /// The number of SYNs that have arrived since [`Self::silence`].
    pub fn silenced_syns(&self) -> Result<u64> {
        let listed: Value =
            serde_json::from_str(&self.run(&["nft", "--json", "list counters table inet silence"])?)?;
        let counters = listed["nftables"].as_array().context("nft lists no objects")?.iter();
        let mut packets = counters.filter_map(|it| it["counter"]["packets"].as_u64());
        packets.next().context("nft lists no counter")
    }

    /// Ends [`Self::silence`].
    pub fn listen_again(&self) -> Result<()> {
        self.run(&["nft", "delete table inet silence"]).map(drop)
    }

    /// Moves the calling thread in here.
    fn enter(&self) -> Result<()> {
        let file = File::open(self.path()).with_context(|| format!("open namespace {self}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter namespace {self}"))
    }

    fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// All namespaces with this prefix.
pub fn beginning_with(prefix: &str) -> Result<Vec<Namespace>> {
    let names = match fs::read_dir(NAMES) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {NAMES}")),
    };
    let mut found = Vec::new();
    for name in names {
        let name = name?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            found.push(Namespace::existing(name));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
