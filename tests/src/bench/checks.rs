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
    let fewest = ((time.as_secs_f64() / INTERVAL.as_secs_f64()) as usize).saturating_sub(1);
    for (server, skipped) in servers.iter().zip(skipped) {
        let checks = checks_of(server)?;
        late.extend(lateness(&checks[skipped..], fewest).with_context(|| server.backend.name.clone())?);
    }

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

/// For each probe of a server, the milliseconds after its point of the grid. Each port is a backend.
///
/// The points of a backend have its probes in order, one each: after a probe that never came, all are late by an
/// interval. The earliest probe defines the grid.
fn lateness(checks: &[(u16, f64)], fewest: usize) -> Result<Vec<f64>> {
    let mut of_backend: BTreeMap<u16, Vec<f64>> =
        many::ports(SERVICES).map(|port| (port, Vec::new())).collect();
    for &(port, at) in checks {
        of_backend.get_mut(&port).with_context(|| format!("{port} is no port of a backend"))?.push(at);
    }
    let mut late = Vec::new();
    for (port, times) in &of_backend {
        ensure!(times.len() >= fewest, "{} probes of port {port} instead of {fewest}", times.len());
        let after_start = |(n, at): (usize, &f64)| at - n as f64 * INTERVAL.as_secs_f64();
        let earliest = times.iter().enumerate().map(after_start).fold(f64::INFINITY, f64::min);
        late.extend(times.iter().enumerate().map(|it| (after_start(it) - earliest) * 1000.0));
    }
    Ok(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_never_came_makes_the_next_ones_late_by_an_interval() {
        let late = lateness(&checks(&[5.1, 6.0, 7.0, 9.0]), 4).unwrap();

        let of_backend: Vec<_> = late[..4].iter().map(|late| late.round()).collect();
        assert_eq!(of_backend, [100.0, 0.0, 0.0, 1000.0]);
    }

    #[test]
    fn each_backend_must_have_its_probes() {
        let mut checks = checks(&[5.0, 6.0]);
        assert!(lateness(&checks, 2).is_ok());

        checks.pop();

        let error = lateness(&checks, 2).unwrap_err();
        let last = many::ports(SERVICES).last().unwrap();
        assert_eq!(error.to_string(), format!("1 probes of port {last} instead of 2"));
    }

    /// All backends of a server with these times.
    fn checks(times: &[f64]) -> Vec<(u16, f64)> {
        many::ports(SERVICES).flat_map(|port| times.iter().map(move |at| (port, *at))).collect()
    }
}
