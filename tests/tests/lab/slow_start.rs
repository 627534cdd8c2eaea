//! Slow start: the share of a server that was restarted grows in steps.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_common::service::Mode;
use tests::lab::{Config, Daemon, Family, Lab, Shape, Topology, eventually, wait::SOON};

const LENGTH: Duration = Duration::from_secs(20);

#[test]
fn the_share_of_a_restarted_server_grows_in_steps_to_exactly_that_of_the_others() -> Result<()> {
    let lab = Lab::build(&Topology::new("slow", Shape::TwoNics))?;
    let mut web = lab.web_servers()?;
    let mut config = Config::web(&lab, Mode::FullNat);
    config.services[0].keys.push("slow_start = \"20s\"");
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    ensure!(tenths(&xlb)? == 10, "a slow start when the daemon starts");

    web[0].kill()?;
    eventually(SOON, "web-1 is down", || Ok(tenths(&xlb)? == 0))?;
    web[0].start_again()?;
    let begun = Instant::now();
    let (mut step, mut steps) = (0, Vec::new());
    while step < 10 {
        eventually(LENGTH / 10 + SOON, "the next step", || Ok(tenths(&xlb)? > step))?;
        step = tenths(&xlb)?;
        // Ten cycles.
        let tally = lab.visit(Family::V4, 80, 10 * (20 + step))?;
        if tenths(&xlb)? == step {
            let shares = ["web-1", "web-2", "web-3"].map(|backend| tally.of(backend));
            assert_eq!(shares, [10 * step, 100, 100], "{step} tenths: {tally}");
            steps.push(step);
        }
    }

    assert_eq!(steps.first(), Some(&1), "{steps:?}");
    assert!(steps.len() > 5, "{steps:?}");
    assert!(begun.elapsed() > LENGTH * 9 / 10, "{:?}", begun.elapsed());
    Ok(())
}

/// Of its weight, which is 100, with which web-1 gets flows.
fn tenths(xlb: &Daemon) -> Result<usize> {
    let backend = xlb.json(&["backend", "show", "web/web-1"])?;
    let weight = backend["effective_weight"].as_u64().context("no effective weight")?;
    Ok(weight as usize / 10)
}
