//! `share_flows = "exceptions"`: the other node computes the backends of most connections, and they go on there.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Backend, Config, Family, Lab, Live, Namespace, address, config::Service, nodes::Nodes, process::Program,
    wait::eventually,
};

/// The services, and their servers: one echoes, the other sends and never reads.
const ECHO: u16 = 7;
const PUSH: u16 = 19;
const KEY: &str =
    "c37a6f3e1b5d4c2f8e9a0b1c2d3e4f50617283940a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5";

/// In each family.
const CONNECTIONS: usize = 100;
const INTERVAL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(20);
/// A connection that echoes nothing for so long is broken.
const BROKEN: Duration = Duration::from_secs(5);

#[test]
fn the_other_node_goes_on_with_connections_of_which_it_was_not_told() -> Result<()> {
    let lab = Nodes::network("except", Mode::Nat)?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let _senders = senders(&lab)?;
    let key_file = lab.directory().join("hash.key");
    fs::write(&key_file, KEY)?;
    fs::set_permissions(&key_file, Permissions::from_mode(0o600))?;
    let config =
        [("echo", ECHO), ("push", PUSH)].into_iter().fold(Config::new(&lab), |config, (name, port)| {
            let mut service = Service::over(&lab, name, Protocol::Tcp, Mode::Nat, port, port);
            (service.scheduler, service.keys) = (Some("maglev"), vec!["share_flows = \"exceptions\""]);
            config.service(service)
        });
    let mut both = Nodes::start(lab, &Config { key_file: Some(key_file), ..config })?;
    both.wait_until_both_share()?;

    let mut live = open(&both.lab)?;
    let receivers = receivers(&both.lab)?;
    // Of the next connections, those that would have web-1 get another backend: the other node must be told.
    for backend in ["echo/web-1", "echo/web-1-v6"] {
        both.nodes[0].xlb.run(&["backend", "drain", backend])?;
    }
    live.extend(open(&both.lab)?);
    let flows = both.nodes[0].flows("echo")?.len() as u64;
    assert_eq!(flows as usize, 4 * CONNECTIONS);
    let held = wait_until_all_is_told(&both)?;
    assert!((20..200).contains(&held), "{held} of {flows} flows are exceptions, not a third of 200");

    both.kill(0)?;
    both.nodes[1].wait_until("active")?;

    let alive: usize = live.iter().map(|live| live.count_alive(BROKEN)).sum::<Result<_>>()?;
    assert_eq!(alive, 4 * CONNECTIONS);
    receivers.iter().try_for_each(Receiver::goes_on)
}

/// Waits until the second node has what the first one has sent. Returns how many of its flows it holds.
fn wait_until_all_is_told(both: &Nodes) -> Result<u64> {
    let count = |node: usize, what: &str| -> Result<u64> {
        both.nodes[node].peer()?[what].as_u64().with_context(|| format!("no {what}"))
    };
    eventually(PATIENCE, "lb-2 has what lb-1 has sent", || {
        let (sent, received) = (count(0, "flows_sent_total")?, count(1, "flows_received_total")?);
        Ok(sent > 0 && sent == received)
    })?;
    count(1, "flows_held")
}

/// Connections of both families that echo a byte every 100 ms.
fn open(lab: &Lab) -> Result<Vec<Live>> {
    let open = |family| {
        let to = address::SERVICE.port(family, ECHO);
        Live::open_at(INTERVAL, &lab.client, (&lab.client_addresses(family), to), CONNECTIONS)
    };
    Family::ALL.into_iter().map(open).collect()
}

/// A client that only receives, and where it writes what it gets.
struct Receiver {
    _socat: Program,
    file: PathBuf,
}

impl Receiver {
    /// Waits until more has come.
    fn goes_on(&self) -> Result<()> {
        let length = || Ok::<_, anyhow::Error>(fs::metadata(&self.file)?.len());
        let before = length()?;
        eventually(PATIENCE, &format!("{} grows", self.file.display()), || Ok(length()? > before)).map(drop)
    }
}

fn receivers(lab: &Lab) -> Result<Vec<Receiver>> {
    let mut all = Vec::new();
    for number in 0..8 {
        let to = address::SERVICE.port(Family::ALL[number % 2], PUSH);
        let file = lab.directory().join(format!("received-{number}"));
        let output = File::create(&file)?;
        all.push(Receiver {
            _socat: socat(&lab.client, &["-u", &format!("TCP:{to}"), "STDOUT"], output)?,
            file,
        });
    }
    all.iter().try_for_each(Receiver::goes_on)?;
    Ok(all)
}

/// Servers that send a byte every 100 ms to each client, and read nothing.
fn senders(lab: &Lab) -> Result<Vec<Program>> {
    let listens = [("TCP4-LISTEN", ""), ("TCP6-LISTEN", ",ipv6only")];
    let listens = listens.map(|(word, options)| format!("{word}:{PUSH}{options},fork,reuseaddr"));
    let on = |backend: &Backend| {
        let start = |listen: &String| {
            let words = ["-U", listen, "SYSTEM:while printf x; do sleep 0.1; done"];
            socat(&backend.namespace, &words, File::options().write(true).open("/dev/null")?)
        };
        listens.iter().map(start).collect::<Vec<_>>()
    };
    lab.backends.iter().flat_map(on).collect()
}

fn socat(namespace: &Namespace, words: &[&str], output: File) -> Result<Program> {
    let mut command = namespace.command("socat");
    command.args(words).stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
    Ok(command.spawn().context("start socat; `cargo xtask setup` installs it")?.into())
}
