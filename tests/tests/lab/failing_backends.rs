//! Backends that fail under load: retries and passive ejection. `XLB_KILLS` says how often a server is killed in each mode
//! (default: 3).

mod flapping;
mod skewed;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_common::{ejection::FAILURES, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, Web, address,
    config::{Check, Limits},
    eventually,
    flood::{self, Flood, Kind, RATE},
    rush::{Connection, Rush},
    wait::{self, SOON},
};

const PER_SECOND: u32 = 200;
/// Time limit of a connection, from connect to close.
const LIMIT: Duration = Duration::from_secs(10);
/// A client repeats its SYN after a second.
const SLOWEST: Duration = Duration::from_millis(1200);
/// The most connections that a server has accepted and not answered yet: those of 200 ms.
const BEING_ANSWERED: usize = PER_SECOND as usize / 5;
/// Within this time a server that is back gets connections again.
const BACK: Duration = Duration::from_secs(10);

const REFUSED: &str = "xlb_backend_refused_total";
const RETRIED: &str = "xlb_retried_flows_total";

/// The defaults of the configuration, with three web servers.
struct Servers {
    web: Vec<Web>,
    xlb: Daemon,
    lab: Lab,
}

impl Servers {
    fn start(tag: &'static str, mode: Mode) -> Result<Self> {
        Self::start_with(tag, mode, |_| {})
    }

    /// The defaults, except for a change.
    fn start_with(tag: &'static str, mode: Mode, change: impl FnOnce(&mut Config)) -> Result<Self> {
        let lab = Lab::build(&Topology::new(tag, Shape::TwoNics).mode(mode))?;
        let web = lab.web_servers()?;
        let mut config = Config::web(&lab, mode);
        config.services[0] = config.services[0].clone().only(Family::V4);
        let health = &mut config.services[0].health;
        (health.interval, health.timeout) = (Duration::from_secs(1), Duration::from_secs(1));
        change(&mut config);
        let xlb = lab.start(&config)?;
        xlb.wait_until_all_are_up()?;
        Ok(Self { web, xlb, lab })
    }

    fn rush(&self, goes_on: impl Fn() -> bool + Send + Sync) -> Result<Vec<Connection>> {
        let to = address::SERVICE.port(Family::V4, 80);
        let ways = self.lab.client_addresses(Family::V4).into_iter().map(|from| (from, to)).collect();
        Rush { ways, per_second: PER_SECOND, limit: LIMIT }.run(&self.lab.client, goes_on)
    }

    /// Kills a server under load until it is down, judges all connections, and starts the server again.
    fn kill(&mut self, server: usize) -> Result<Vec<Connection>> {
        let is_over = AtomicBool::new(false);
        let mut victim = self.web.remove(server);
        let name = victim.backend.name.clone();
        let before = [self.sum(REFUSED)?, self.sum(RETRIED)?];
        let (connections, killed) = thread::scope(|scope| -> Result<_> {
            let rushing = scope.spawn(|| self.rush(|| !is_over.load(Ordering::Relaxed)));
            let killed = (|| -> Result<Instant> {
                thread::sleep(Duration::from_secs(1)); // Of load, before the kill.
                victim.kill()?;
                let killed = Instant::now();
                eventually(SOON, "the server is ejected", || Ok(self.sum("xlb_backend_ejected")? == 1.0))?;
                eventually(SOON, "the server is down", || Ok(self.xlb.health("web", &name)? == "down"))?;
                Ok(killed)
            })();
            is_over.store(true, Ordering::Relaxed);
            Ok((wait::join(rushing)?, killed?))
        })?;
        judge(&connections, &[killed])?;
        let [refused, retried] = [self.sum(REFUSED)? - before[0], self.sum(RETRIED)? - before[1]];
        let seen = connections.iter().filter(|it| was_retried(it)).count() as f64;
        // Not exactly: the server may be down by the next SYN of a client that probed it, and a SYN may be late for another
        // reason.
        let is_about = |count: f64| (count - seen).abs() <= 2.0 + seen / 5.0;
        let are_counted = is_about(refused) && is_about(retried);
        ensure!(are_counted, "{refused} refused, {retried} retried, and {seen} clients connected late");
        victim.start_again()?;
        self.web.insert(server, victim);
        eventually(SOON, "the server is up", || Ok(self.xlb.health("web", &name)? == "up"))?;
        Ok(connections)
    }

    fn packets_of_known_flows(&self) -> Result<f64> {
        Ok(self.sum("xlb_backend_forwarded_packets_total")? - self.sum("xlb_backend_new_flows_total")?)
    }

    /// Of all backends.
    fn sum(&self, metric: &str) -> Result<f64> {
        Ok(self.xlb.metrics()?.sum(metric, &[]))
    }
}

#[test]
fn a_server_that_is_killed_costs_no_connection_with_full_nat() -> Result<()> {
    kill_again_and_again("killfull", Mode::FullNat)
}

#[test]
fn a_server_that_is_killed_costs_no_connection_with_nat() -> Result<()> {
    kill_again_and_again("killnat", Mode::Nat)
}

fn kill_again_and_again(tag: &'static str, mode: Mode) -> Result<()> {
    let kills = std::env::var("XLB_KILLS").map_or(Ok(3), |text| text.parse::<u32>())?;
    let mut servers = Servers::start(tag, mode)?;
    for kill in 1..=kills {
        let connections = servers.kill(1)?;
        println!("kill {kill}: {}", summary(&connections));
    }
    Ok(())
}

/// Every connection is made in time. Only those break that a server had accepted when it was killed.
fn judge(connections: &[Connection], kills: &[Instant]) -> Result<()> {
    let failed: Vec<_> = connections.iter().filter(|it| it.connected.is_err()).collect();
    ensure!(failed.is_empty(), "{} connections failed: {:?}", failed.len(), failed[0]);
    let slow: Vec<_> =
        connections.iter().filter(|it| it.connected.as_ref().is_ok_and(|took| *took > SLOWEST)).collect();
    ensure!(slow.is_empty(), "{} of {} connections were slow: {:?}", slow.len(), connections.len(), slow[0]);
    let is_accepted =
        |it: &&Connection| kills.iter().any(|kill| it.begun < *kill && it.begun + SLOWEST > *kill);
    let broken: Vec<_> =
        connections.iter().filter(|it| it.answer.is_none()).filter(|it| !is_accepted(it)).collect();
    ensure!(broken.is_empty(), "{} connections broke after the kill: {:?}", broken.len(), broken[0]);
    let broken = connections.iter().filter(|it| it.answer.is_none()).count();
    ensure!(broken <= BEING_ANSWERED * kills.len(), "{broken} connections broke: {}", summary(connections));
    Ok(())
}

fn summary(connections: &[Connection]) -> String {
    let slowest = connections.iter().map(took).max().unwrap_or_default();
    let retried = connections.iter().filter(|it| was_retried(it)).count();
    let broken = connections.iter().filter(|it| it.answer.is_none()).count();
    format!(
        "{} connections, {retried} of them retried, the slowest in {slowest:.0?}, {broken} broken",
        connections.len()
    )
}

fn was_retried(connection: &Connection) -> bool {
    took(connection) > Duration::from_millis(900)
}

fn took(connection: &Connection) -> Duration {
    connection.connected.as_ref().copied().unwrap_or_default()
}

#[test]
fn with_on_refused_pass_refusals_reach_the_client() -> Result<()> {
    let mut servers = Servers::start_with("pass", Mode::FullNat, |config| {
        config.services[0].keys.push("on_refused = \"pass\"");
    })?;

    servers.web[1].kill()?;
    let start = Instant::now();
    let connections = servers.rush(|| start.elapsed() < Duration::from_millis(500))?;

    let refused =
        connections.iter().filter(|it| matches!(&it.connected, Err(why) if why.contains("refused")));
    assert!(refused.count() > 0, "no connection was refused: {}", summary(&connections));
    Ok(())
}

#[test]
fn a_silent_host_is_ejected_without_a_daemon_and_comes_back() -> Result<()> {
    let mut servers = Servers::start("mute", Mode::FullNat)?;
    let host = servers.web[1].backend.namespace.clone();
    servers.xlb.kill()?;

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<_> {
        let rushing = scope.spawn(|| servers.rush(|| !is_over.load(Ordering::Relaxed)));
        let observed = (|| -> Result<Vec<Duration>> {
            host.silence()?;
            thread::sleep(Duration::from_secs(3)); // The time in which it must be ejected.
            let arrivals = watch(Duration::from_secs(10), || host.silenced_syns())?;
            // It comes back when it has just been probed: by now the next probe is as late as it ever is.
            let probes = host.silenced_syns()?;
            eventually(BACK, "another probe", || Ok(host.silenced_syns()? > probes))?;
            host.listen_again()?;
            let answers = || servers.web[1].requests().map(|requests| requests.len());
            let before = answers()?;
            let back = eventually(BACK, "web-2 answers", || Ok(answers()? > before))?;
            println!("probes {arrivals:.1?}; back after {back:.1?}");
            Ok(arrivals)
        })();
        is_over.store(true, Ordering::Relaxed);
        let connections = wait::join(rushing)?;
        println!("{}", summary(&connections));

        let arrivals = observed?;
        ensure!(!arrivals.is_empty(), "the host was never probed");
        let gaps = arrivals.windows(2).map(|pair| pair[1] - pair[0]);
        ensure!(gaps.into_iter().all(|gap| gap > Duration::from_millis(950)), "{arrivals:?}");
        Ok(())
    })?;

    servers.xlb.start_again()?;
    let unanswered = servers.sum("xlb_backend_unanswered_total")?;
    ensure!(unanswered >= f64::from(FAILURES), "{unanswered} SYNs were repeated");
    Ok(())
}

/// When the number rose, once for each unit.
fn watch(time: Duration, number: impl Fn() -> Result<u64>) -> Result<Vec<Duration>> {
    let (start, mut arrivals, mut before) = (Instant::now(), Vec::new(), number()?);
    while start.elapsed() < time {
        let now = number()?;
        arrivals.extend((before..now).map(|_| start.elapsed()));
        before = now;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(arrivals)
}

#[test]
fn a_flood_of_forged_syns_ejects_nothing_even_if_each_is_repeated() -> Result<()> {
    // At 40,000 SYNs a second, each source's SYN is repeated after half a second, and after a second and a half.
    const KEYS: [u32; 2] = [20_000, 60_000];
    let servers = Servers::start_with("forged", Mode::FullNat, |config| {
        // No SYN is forgotten before it is repeated, and no successful check ends an ejection.
        config.limits = Limits::of_flows(131_072, 1_024, 131_072);
        config.services[0].health.check = Check::None;
    })?;
    flood::route_back(&servers.lab)?;

    for keys in KEYS {
        let mut of_known_flows = 0.0;
        for _ in 0..2 {
            let before = servers.packets_of_known_flows()?;
            let to = address::SERVICE.port(Family::V4, 80);
            let flood = Flood::start(&servers.lab, Kind::Syn, to, keys, RATE)?;
            while flood.is_running() {
                ensure!(servers.sum("xlb_backend_ejected")? == 0.0, "a backend is ejected");
                thread::sleep(Duration::from_millis(50));
            }
            flood.finish()?;
            of_known_flows = servers.packets_of_known_flows()? - before;
        }
        println!("{of_known_flows} of {keys} SYNs were of known flows");
        ensure!(
            of_known_flows >= f64::from(keys) * 0.8,
            "too few SYNs were repeated: {of_known_flows} of {keys}"
        );
    }
    ensure!(servers.sum("xlb_backend_ejected")? == 0.0, "a backend is ejected");
    let start = Instant::now();
    let connections = servers.rush(|| start.elapsed() < Duration::from_secs(1))?;
    ensure!(connections.iter().all(|it| it.connected.is_ok()), "{connections:?}");
    Ok(())
}
