//! Backends come and go: which ones get new connections, and from when on.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::Result;
use lb_common::service::Mode;
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Tally, Topology, eventually,
    wait::{SOON, join},
};

use crate::stage::Stage;

#[test]
fn backends_are_added_and_removed_while_requests_come_in() -> Result<()> {
    let Stage { lab, web, xlb, .. } = Stage::web("added")?;
    let is_over = AtomicBool::new(false);

    let tally = thread::scope(|scope| -> Result<Tally> {
        let load = scope.spawn(|| visit_until(&lab, &is_over));
        xlb.run(&["backend", "remove", "web/web-3"])?;
        let shares = eventually_shared_by(&lab, 2);
        xlb.run(&["backend", "add", "web/web-3b", &format!("{}:8080", web[2].backend.address.v4)])?;
        let shares = shares.and_then(|()| eventually_shared_by(&lab, 3));
        is_over.store(true, Ordering::Relaxed);
        let tally = join(load)?;
        shares.map(|()| tally)
    })?;

    // Removing a backend ends its flows, some of them with requests in progress.
    assert!(tally.failed() <= 64, "{tally}");
    assert!(tally.of("web-1") > 0 && tally.of("web-3") > 0, "{tally}");
    Ok(())
}

#[test]
fn adding_a_backend_breaks_nothing() -> Result<()> {
    let lab = Lab::build(&Topology::new("fourth", Shape::TwoNics).backends(4))?;
    let _web = lab.web_servers()?;
    let mut config = Config::web(&lab, Mode::FullNat);
    config.services[0].backends.retain(|backend| !backend.name.starts_with("web-4"));
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let is_over = AtomicBool::new(false);

    let tally = thread::scope(|scope| -> Result<Tally> {
        let load = scope.spawn(|| visit_until(&lab, &is_over));
        let added = xlb.run(&["backend", "add", "web/web-4", "10.0.0.14:8080"]);
        let shares = added.and_then(|_| eventually_shared_by(&lab, 4));
        is_over.store(true, Ordering::Relaxed);
        let tally = join(load)?;
        shares.map(|()| tally)
    })?;

    assert_eq!(tally.failed(), 0, "{tally}");
    assert!(tally.of("web-4") > 0, "{tally}");
    Ok(())
}

#[test]
fn changes_by_commands_outlive_the_daemon_until_the_file_overrides_them() -> Result<()> {
    let Stage { lab, web: _web, mut config, mut xlb } = Stage::web("overlay")?;
    xlb.run(&["backend", "drain", "web/web-1"])?;
    xlb.run(&["backend", "weight", "web/web-2", "0"])?;
    xlb.run(&["backend", "backup", "web/web-2-v6", "true"])?;
    xlb.run(&["backend", "remove", "web/web-3-v6"])?;
    let differences = [
        "web/web-1: drain",
        "web/web-2: weight 0 (file: 100)",
        "web/web-2-v6: backup true (file: false)",
        "web/web-3-v6: removed",
    ];
    assert_eq!(overlay(&xlb)?, differences);

    xlb.kill()?;
    xlb.start_again()?;
    xlb.run(&["reload"])?;

    assert_eq!(overlay(&xlb)?, differences);
    let (v4, v6) = (lab.visit(Family::V4, 80, 60)?, lab.visit(Family::V6, 80, 60)?);
    assert!(v4.of("web-3") == 60 && v6.of("web-1") == 60, "{v4}\n{v6}");

    // The file has its own definition of web-2 changed, and drops web-1.
    config.services[0].backends.retain(|backend| backend.name != "web-1");
    config.services[0].backends[0].backup = true;
    xlb.write(&config)?;
    xlb.hang_up()?;

    let left = ["web/web-1: drain (no longer in the configuration file)", differences[2], differences[3]];
    eventually(SOON, "the file wins where it has changed", || Ok(overlay(&xlb)? == left))?;
    let log = lab.log()?;
    let said = "web/web-2: changed in the configuration file: the command's change `weight 0 (file: 100)` is dropped";
    assert!(log.contains(said), "{log}");
    Ok(())
}

#[test]
fn a_backup_serves_only_while_no_other_is_up() -> Result<()> {
    let lab = Lab::build(&Topology::new("backup", Shape::TwoNics))?;
    let mut web = lab.web_servers()?;
    let mut config = Config::web(&lab, Mode::FullNat);
    for backend in &mut config.services[0].backends {
        backend.backup = backend.name.starts_with("web-3");
    }
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let limit = config.services[0].health.notices_refusal_within();

    let before = lab.visit(Family::V4, 80, 300)?;
    web[0].kill()?;
    web[1].kill()?;
    thread::sleep(limit);
    let without = lab.visit(Family::V4, 80, 300)?;
    web[2].kill()?;
    thread::sleep(limit);
    let alone = lab.client.output(&["curl", "-sS", "-m", "1", "http://192.0.2.10/"])?;

    assert!(before.is_even(2) && before.of("web-3") == 0, "{before}");
    assert_eq!(without.of("web-3"), 300, "{without}");
    assert_ne!(alone.code, 0);
    assert!(xlb.metrics()?.sum("xlb_dropped_packets_total", &[("reason", "no_backend")]) > 0.0);
    Ok(())
}

/// Under other load, shares of a part of the requests are not equal, but they show which backends serve.
fn eventually_shared_by(lab: &Lab, backends: usize) -> Result<()> {
    eventually(SOON, &format!("{backends} backends serve"), || {
        let tally = lab.visit(Family::V4, 80, 60)?;
        Ok(tally.answers.len() == backends)
    })
    .map(drop)
}

fn visit_until(lab: &Lab, is_over: &AtomicBool) -> Result<Tally> {
    let mut all = Tally::default();
    while !is_over.load(Ordering::Relaxed) {
        all += lab.visit(Family::V4, 80, 500)?;
    }
    Ok(all)
}

/// Where file and commands differ.
fn overlay(xlb: &Daemon) -> Result<Vec<String>> {
    let status = xlb.json(&["status"])?;
    let lines = status["overlay"].as_array().into_iter().flatten();
    Ok(lines.filter_map(|line| line.as_str()).map(str::to_owned).collect())
}
