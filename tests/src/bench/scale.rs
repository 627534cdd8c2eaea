//! Thousands of services: how long the start, a change, a reload and each answer take, and what health checks cost.
//!
//! The network is real, and so are the web servers, which share the CPUs with the daemon. So times include waits for a
//! CPU that a web server has; CPU time does not.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};
use aya::maps::{Array, Map, MapData};
use lb_common::{backend::Backend, cell::Word};

use super::{
    object::Mapped,
    report::{Goal, Table, median},
};
use crate::lab::{Config, Daemon, Lab, Shape, Topology, Web, eventually, many, process::cpu_time_of, wait};

/// The number of services. Each has a backend on every web server.
const SERVICES: u16 = 4096;
const WEB_SERVERS: u8 = 4;

/// Time limit of a start, and of a change.
const LIMIT: Duration = Duration::from_secs(120);
/// How long CPU time is measured. The maps are read back twice in this time.
const STEADY: Duration = Duration::from_secs(20);
/// Interval between reads of the map in which a change is awaited.
const STEP: Duration = Duration::from_micros(200);

/// Goals for medians, in milliseconds.
const GOAL_ALL_SERVE: f64 = 10_000.0;
const GOAL_CHANGE: f64 = 20.0;
const GOAL_STATUS: f64 = 100.0;
const GOAL_RELOAD: f64 = 1_000.0;
/// Percent of a CPU while nothing changes.
const GOAL_CPU: f64 = 60.0;

/// Measures everything, changes and answers this many times.
pub fn measure(rounds: u16) -> Result<Vec<Table>> {
    eprintln!("bench: scale, {WEB_SERVERS} web servers on {SERVICES} ports each");
    let lab = Lab::build(&Topology::new("scale", Shape::TwoNics).backends(WEB_SERVERS))?;
    for backend in &lab.backends {
        // The servers close the connections of checks. With TIME-WAIT, they would hold 200,000 of them.
        backend.namespace.sysctl("net.ipv4.tcp_max_tw_buckets", "0")?;
    }
    let servers = lab.web_servers_on(many::ports(SERVICES))?;
    let config = many::config(&lab, SERVICES);
    let mut times = Times::new();

    let begun = Instant::now();
    let mut daemon = lab.start(&config)?;
    times.add("start, until it answers", None, Ok(vec![milliseconds(begun)]));
    wait_until_all_serve(&lab)?;
    times.add("start, until all backends serve", Some(GOAL_ALL_SERVE), Ok(vec![milliseconds(begun)]));

    eprintln!("bench: scale, CPU time for {STEADY:?}");
    let cpu = cpu_time(&daemon, &servers)?;

    eprintln!("bench: scale, changes and answers");
    let pools: Mapped<Word> = Mapped::new(&pinned(&lab, "POOLS")?)?;
    for (case, state) in
        [("drain", "drain"), ("ready", "ready"), ("maint", "maint"), ("ready after maint", "ready")]
    {
        let changes = (0..rounds).map(|round| change(&daemon, &pools, state, round));
        let changes = changes.collect::<Result<Vec<_>>>();
        let (in_force, answered) = match changes {
            Ok(changes) => {
                let (in_force, answered) = changes.into_iter().unzip();
                (Ok(in_force), Ok(answered))
            }
            Err(error) => (Err(error), Err(anyhow!("not measured"))),
        };
        times.add(&format!("xlb backend {case}, until in force"), Some(GOAL_CHANGE), in_force);
        times.add(&format!("xlb backend {case}, until answered"), None, answered);
    }
    for (words, goal) in [
        (&["status"][..], Some(GOAL_STATUS)),
        (&["status", "-o", "json"], Some(GOAL_STATUS)),
        (&["backend", "list"], None),
        (&["stats"], None),
        (&["metrics"], None),
    ] {
        let answers = (0..rounds).map(|_| command(&daemon, words)).collect();
        times.add(&format!("xlb {}", words.join(" ")), goal, answers);
    }
    let beside = (0..rounds).map(|_| beside_a_scrape(&daemon)).collect();
    times.add("xlb backend show during a scrape", None, beside);
    let reloads = reloads(&daemon, &config, rounds);
    times.add("xlb reload, one backend removed, then added again", Some(GOAL_RELOAD), reloads);

    daemon.stop()?;
    let begun = Instant::now();
    daemon.start_again()?;
    times.add("restart, until it answers", None, Ok(vec![milliseconds(begun)]));
    daemon.stop()?;
    daemon.run(&["detach"])?;

    Ok(vec![times.0, cpu])
}

/// A row for each thing that was timed.
struct Times(Table);

impl Times {
    fn new() -> Self {
        let title = format!("milliseconds, {SERVICES} services with {WEB_SERVERS} backends each");
        Self(Table::new(title, &["median", "most"], 1))
    }

    /// A failure ends this row alone. A goal is for the median.
    fn add(&mut self, what: &str, goal: Option<f64>, times: Result<Vec<f64>>) {
        let times = match times {
            Ok(times) => times,
            Err(error) => return self.0.fail(what, &error),
        };
        let most = times.iter().copied().fold(0.0, f64::max);
        self.0.row(what, [median(&times), most].map(Some));
        if let Some(goal) = goal {
            self.0.goal("median", Goal::AtMost(goal));
        }
    }
}

/// Reads the map, so that the daemon is not disturbed.
fn wait_until_all_serve(lab: &Lab) -> Result<()> {
    let all = usize::from(SERVICES) * usize::from(WEB_SERVERS);
    let backends = Array::<_, Backend>::try_from(Map::Array(pinned(lab, "BACKENDS")?))?;
    let serving = || backends.iter().filter(|backend| matches!(backend, Ok(it) if it.accepts == 1)).count();
    eventually(LIMIT, "all backends serve", || Ok(serving() == all)).map(drop)
}

/// The CPU time of the daemon and of all web servers, in percent of a CPU.
fn cpu_time(daemon: &Daemon, servers: &[Web]) -> Result<Table> {
    let (daemon, servers) = (daemon.pid()?, servers.iter().map(Web::pid).collect::<Result<Vec<_>>>()?);
    let now = || -> Result<(Duration, Duration)> {
        let servers: Duration = servers.iter().map(|pid| cpu_time_of(*pid)).sum::<Result<_>>()?;
        Ok((cpu_time_of(daemon)?, servers))
    };
    let (begun, before) = (Instant::now(), now()?);
    thread::sleep(STEADY);
    let (elapsed, after) = (begun.elapsed(), now()?);

    let percent = |time: Duration| Some(100.0 * time.as_secs_f64() / elapsed.as_secs_f64());
    let mut table =
        Table::new(format!("percent of a CPU, over {STEADY:?}, while nothing changes"), &["CPU"], 1);
    table.row("xlb", [percent(after.0 - before.0)]);
    table.goal("CPU", Goal::AtMost(GOAL_CPU));
    table.row("all web servers", [percent(after.1 - before.1)]);
    Ok(table)
}

/// Milliseconds until the change is in force, and until it is answered. Nothing else changes a pool meanwhile, as all
/// backends are up.
fn change(daemon: &Daemon, pools: &Mapped<Word>, state: &str, round: u16) -> Result<(f64, f64)> {
    // Not next to each other in the file or in the maps.
    let service = many::name(*many::ports(SERVICES).start() + round * 97 % SERVICES);
    let words: Vec<u64> = pools.iter().map(Word::load).collect();
    let begun = Instant::now();
    thread::scope(|scope| {
        let answered = scope.spawn(|| command(daemon, &["backend", state, &format!("{service}/web-1")]));
        while pools.iter().map(Word::load).eq(words.iter().copied()) {
            ensure!(begun.elapsed() < LIMIT, "{state} of a backend of {service} is not in force");
            thread::sleep(STEP);
        }
        let in_force = milliseconds(begun);
        Ok((in_force, wait::join(answered)?))
    })
}

/// Milliseconds of a request that is sent while a scrape is under way.
fn beside_a_scrape(daemon: &Daemon) -> Result<f64> {
    /// The daemon has begun to collect.
    const UNDER_WAY: Duration = Duration::from_millis(30);
    thread::scope(|scope| {
        let scrape = scope.spawn(|| command(daemon, &["metrics"]));
        thread::sleep(UNDER_WAY);
        let service = many::name(*many::ports(SERVICES).start());
        let answered = command(daemon, &["backend", "show", &format!("{service}/web-1")])?;
        wait::join(scrape)?;
        Ok(answered)
    })
}

/// Reloads a file without a backend, and one with it.
fn reloads(daemon: &Daemon, config: &Config, rounds: u16) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for service in 0..usize::from(rounds) / 2 {
        let mut smaller = config.clone();
        smaller.services[service].backends.pop();
        for file in [&smaller, config] {
            daemon.write(file)?;
            times.push(command(daemon, &["reload"])?);
        }
    }
    Ok(times)
}

/// Milliseconds of a command, its process included.
fn command(daemon: &Daemon, words: &[&str]) -> Result<f64> {
    let begun = Instant::now();
    daemon.run(words)?;
    Ok(milliseconds(begun))
}

/// The pinned map of this name.
pub fn pinned(lab: &Lab, map: &str) -> Result<MapData> {
    let prefix = format!("{map}_");
    for pin in fs::read_dir(lab.pins())? {
        let pin = pin?;
        if pin.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(MapData::from_pin(pin.path())?);
        }
    }
    bail!("{map} is not pinned")
}

/// Milliseconds since then.
pub fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
