//! A thousand backends that are checked by https each second: the CPU time of the daemon, and how late probes are.
//!
//! The web servers share the CPUs with the daemon. They log when they have answered a probe, so lateness includes all waits
//! for a CPU, of both sides.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::report::{Goal, Table, median};
use crate::lab::{
    Config, Lab, Shape, Topology, certificate,
    config::Check,
    eventually, many,
    process::cpu_time_of,
    web::{Encryption, Web},
};

/// Each has a backend on both web servers.
const SERVICES: u16 = 500;
const WEB_SERVERS: u8 = 2;
const BACKENDS: usize = SERVICES as usize * WEB_SERVERS as usize;
const INTERVAL: Duration = Duration::from_secs(1);
/// Time limit of the start.
const LIMIT: Duration = Duration::from_secs(60);

/// Percent of a CPU.
const GOAL_CPU: f64 = 100.0;
/// A tenth of the interval, in milliseconds.
const GOAL_LATE: f64 = 100.0;

/// Measures for this long.
pub fn measure(time: Duration) -> Result<Vec<Table>> {
    eprintln!("bench: checks, {BACKENDS} https backends, for {time:?}");
    let lab = Lab::build(&Topology::new("checks", Shape::TwoNics).backends(WEB_SERVERS))?;
    let encryption = Encryption::make(lab.directory())?;
    let servers = lab.web_servers_with(many::ports(SERVICES), Some(&encryption))?;
    let daemon = lab.start(&config(&lab, &encryption))?;
    eventually(LIMIT, "all backends are up", || {
        let metrics = daemon.metrics()?;
        Ok(metrics.sum("xlb_backend_up", &[]) >= BACKENDS as f64)
    })?;

    let pid = daemon.pid()?;
    let (begun, before) = (Instant::now(), cpu_time_of(pid)?);
    let skipped = servers.iter().map(|it| Ok(checks_of(it)?.len())).collect::<Result<Vec<_>>>()?;
    thread::sleep(time);
    let used = (cpu_time_of(pid)? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    let mut late = Vec::new();
    for (server, skipped) in servers.iter().zip(skipped) {
        late.extend(lateness(&checks_of(server)?[skipped..])?);
    }

    let expected = BACKENDS as f64 * time.as_secs_f64() / INTERVAL.as_secs_f64();
    ensure!(late.len() as f64 > 0.98 * expected, "{} probes instead of {expected}", late.len());
    let mut cpu = Table::new(format!("percent of a CPU, {BACKENDS} https checks a second"), &["CPU"], 1);
    cpu.row("xlb", [Some(100.0 * used)]);
    cpu.goal("CPU", Goal::AtMost(GOAL_CPU));
    let mut times = Table::new(
        format!("milliseconds after the planned start of a probe, {} probes", late.len()),
        &["median", "99.9 %", "most"],
        1,
    );
    late.sort_by(f64::total_cmp);
    let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
    times.row("late", [median(&late), at(0.999), at(1.0)].map(Some));
    times.goal("most", Goal::AtMost(GOAL_LATE));
    Ok(vec![cpu, times])
}

fn config(lab: &Lab, encryption: &Encryption) -> Config {
    let mut config = many::config(lab, SERVICES);
    let check = format!(
        "type = \"https\"\npath = \"/healthz\"\nserver_name = \"{}\"\nca = \"{}\"",
        certificate::NAME,
        encryption.certificate.display()
    );
    for service in &mut config.services {
        service.health.check = Check::Written(check.clone());
        (service.health.interval, service.health.timeout) = (INTERVAL, INTERVAL);
    }
    config
}

/// The port, and the seconds since 1970, of each probe that a server has answered.
fn checks_of(server: &Web) -> Result<Vec<(u16, f64)>> {
    let text = fs::read_to_string(server.checks())?;
    let line = |line: &str| -> Result<(u16, f64)> {
        let (port, at) = line.split_once(' ').with_context(|| format!("not a check: {line}"))?;
        Ok((port.parse()?, at.parse()?))
    };
    text.lines().map(line).collect()
}

/// For each probe, the milliseconds after its point of the grid. The earliest probe of a backend defines its grid.
fn lateness(checks: &[(u16, f64)]) -> Result<Vec<f64>> {
    let interval = INTERVAL.as_secs_f64();
    let mut of_backend = BTreeMap::<u16, Vec<f64>>::new();
    for &(port, at) in checks {
        of_backend.entry(port).or_default().push(at);
    }
    let mut late = Vec::new();
    for times in of_backend.values() {
        let first = times.first().context("no probe")?;
        let phase = |at: f64| {
            let passed = at - first;
            passed - (passed / interval).round() * interval
        };
        let earliest = times.iter().map(|at| phase(*at)).fold(f64::INFINITY, f64::min);
        late.extend(times.iter().map(|at| (phase(*at) - earliest) * 1000.0));
    }
    Ok(late)
}
