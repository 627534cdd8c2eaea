//! Connections and requests per second, from wrk to nginx, beside nftables and HAProxy.
//!
//! All three balance the same service over the same servers in the same lab, one after the other, in turns. The ends of
//! all cables have the offloads that XDP needs there (`lab::link::behave_as_a_nic`), for all three.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_common::service::Mode;

use super::report::{Table, median};
use crate::lab::{
    self, Config, Daemon, Family, Lab, Namespace, Topology, address, command, config::Limits, eventually,
    nftables, web,
};

/// Seconds of one measurement.
const SECONDS: u32 = 3;
/// Connections at a time.
const CONNECTIONS: u32 = 64;
const START: Duration = Duration::from_secs(10);

/// The balancer under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Balancer {
    Xlb,
    Nftables,
    Haproxy,
}

impl Balancer {
    const ALL: [Self; 3] = [Self::Xlb, Self::Nftables, Self::Haproxy];

    const fn name(self) -> &'static str {
        match self {
            Self::Xlb => "xlb, full-nat, native",
            Self::Nftables => "nftables, DNAT and masquerade",
            Self::Haproxy => "HAProxy, mode tcp, 2 threads",
        }
    }
}

/// Measures everything.
pub fn measure(rounds: usize) -> Result<Vec<Table>> {
    let lab = Lab::build(&Topology::new("wrk", lab::Shape::TwoNics))?;
    let _servers = lab.web_servers()?;
    for backend in &lab.backends {
        // Servers keep no TIME-WAIT: with it, reusing a source port too early costs a second until the next SYN, and
        // the bench would measure the choice of ports.
        backend.namespace.sysctl("net.ipv4.tcp_max_tw_buckets", "0")?;
    }
    let [mut connections, mut requests] = [(); 2].map(|()| Balancer::ALL.map(|_| Vec::new()));
    for round in 0..rounds {
        eprintln!("bench: end to end, round {} of {}", round + 1, rounds);
        for (i, balancer) in Balancer::ALL.into_iter().enumerate() {
            let running = Running::start(&lab, balancer)?;
            connections[i].push(wrk(&lab.client, &["-H", "Connection: close"])?);
            requests[i].push(wrk(&lab.client, &[])?);
            running.stop(&lab)?;
        }
    }

    Ok(vec![table("connections", rounds, &connections), table("requests", rounds, &requests)])
}

fn table(what: &str, rounds: usize, rates: &[Vec<f64>; Balancer::ALL.len()]) -> Table {
    let title = format!("{what} per second end to end, {CONNECTIONS} at a time, {rounds} interleaved rounds");
    let mut table = Table::new(title, &["median", "least", "most", "xlb/it"], 2);
    let xlb = median(&rates[0]);
    for (balancer, rates) in Balancer::ALL.into_iter().zip(rates) {
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        table.row(balancer.name(), [median(rates), least, most, xlb / median(rates)].map(Some));
    }
    table
}

/// The rate that wrk reports.
fn wrk(client: &Namespace, more: &[&str]) -> Result<f64> {
    let (seconds, connections) = (format!("-d{SECONDS}"), format!("-c{CONNECTIONS}"));
    let url = format!("http://{}/", address::SERVICE.v4);
    let output = client.run(&[&["wrk", "-t2", &connections, &seconds], more, &[&url]].concat())?;
    let rate = output.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(rate.with_context(|| format!("wrk reports no rate:\n{output}"))?.trim().parse()?)
}

/// A running balancer.
enum Running {
    Xlb(Daemon),
    Nftables,
    Haproxy(Killed),
}

impl Running {
    fn start(lab: &Lab, balancer: Balancer) -> Result<Self> {
        let running = match balancer {
            Balancer::Xlb => {
                let limits = Limits::of_flows(262_144, 1024, 1024);
                let daemon = lab.start(&Config { limits, ..Config::web(lab, Mode::FullNat) })?;
                daemon.wait_until_all_are_up()?;
                Self::Xlb(daemon)
            }
            Balancer::Nftables => {
                nftables::balance(lab)?;
                // Conntrack keeps no TIME-WAIT either: a few rounds would fill its table.
                lab.xlb.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1")?;
                Self::Nftables
            }
            Balancer::Haproxy => Self::Haproxy(haproxy(lab)?),
        };
        let service = address::SERVICE.port(Family::V4, 80);
        lab.client.inside(|| {
            eventually(START, balancer.name(), || Ok(TcpStream::connect(service).is_ok())).map(drop)
        })?;
        Ok(running)
    }

    fn stop(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Xlb(mut daemon) => {
                daemon.stop()?;
                daemon.run(&["detach"]).map(drop)
            }
            Self::Nftables => {
                let delete = "delete table ip balance\ndelete table ip6 balance\n";
                let words = ["ip", "netns", "exec", lab.xlb.name(), "nft", "-f", "-"];
                command::run_with_input(&words, delete).map(drop)
            }
            Self::Haproxy(process) => {
                drop(process);
                Ok(())
            }
        }
    }
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Our own child, not yet waited for: both calls can fail only if it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn haproxy(lab: &Lab) -> Result<Killed> {
    let mut config = format!(
        "global
    nbthread 2
    maxconn 1000
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend web
    bind {}
    default_backend servers
backend servers
    balance roundrobin
",
        address::SERVICE.port(Family::V4, 80)
    );
    for backend in &lab.backends {
        config += &format!("    server {} {}\n", backend.name, backend.address.port(Family::V4, web::PORT));
    }
    let path = lab.directory().join("haproxy.cfg");
    fs::write(&path, config)?;
    let mut command: Command = lab.xlb.command("haproxy");
    let process = command.args(["-db", "-f"]).arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    process.map(Killed).context("start haproxy; `cargo xtask setup` installs it")
}
