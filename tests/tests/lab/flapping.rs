//! A hundred backends whose health changes ten times in a second.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::service::Mode;
use tests::lab::{
    Config, Family, Lab, Shape, Topology, address,
    config::{Backend, Check, Health},
    flapping::flapping,
    process::cpu_time_of,
    visit::{ask_again, connect},
};
use tokio::time::sleep;

const FLAPPING: u16 = 100;
const FIRST_PORT: u16 = 9001;
/// Ten checks in a second, each of which changes the health.
const INTERVAL: Duration = Duration::from_millis(100);
/// Unless `XLB_FLAP_SECONDS` says otherwise.
const SECONDS: u64 = 10;
const CONNECTIONS: usize = 60;
/// What the daemon may take of a CPU. A run of the usual length allows twice as much, because other processes may slow the
/// machine down.
const PERCENT: f64 = 25.0;

#[test]
fn changes_of_many_backends_are_joined_and_a_healthy_backend_keeps_its_connections() -> Result<()> {
    let (seconds, percent_max): (u64, f64) = match std::env::var("XLB_FLAP_SECONDS") {
        Ok(seconds) => (seconds.parse()?, PERCENT),
        Err(_) => (SECONDS, 2.0 * PERCENT),
    };
    let lab = Lab::build(&Topology::new("flapping", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    let mut config = Config::web(&lab, Mode::FullNat);
    let service = &mut config.services[0];
    service.scheduler = Some("maglev");
    service.listen.retain(SocketAddr::is_ipv4);
    service.backends.retain(|backend| backend.name == "web-1");
    let check = Check::Http { path: "/healthz" };
    service.health = Health { check, interval: INTERVAL, timeout: INTERVAL, rise: 1, fall: 1 };
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let host = &lab.backends[1];
    let addresses: Vec<_> = (0..FLAPPING).map(|n| host.address.port(Family::V4, FIRST_PORT + n)).collect();
    let _flapping = flapping(&host.namespace, addresses.clone())?;
    config.services[0].backends.extend(addresses.iter().zip(1..).map(|(address, number)| Backend {
        name: format!("flapping-{number}"),
        address: *address,
        weight: 100,
        backup: false,
        max_flows: 0,
    }));
    let (from, to) = (lab.clients[0].of(Family::V4), address::SERVICE.port(Family::V4, 80));
    let sums = || -> Result<[f64; 2]> {
        let metrics = xlb.metrics()?;
        Ok(["xlb_map_updates_total", "xlb_backend_state_changes_total"].map(|it| metrics.sum(it, &[])))
    };

    lab.client.block_on(async || {
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            open.push(connect(SocketAddr::new(from, 0), to).await?);
        }
        xlb.write(&config)?;
        xlb.run(&["reload"])?;
        sleep(Duration::from_secs(1)).await;

        let (begun, cpu, before) = (Instant::now(), cpu_time_of(xlb.pid()?)?, sums()?);
        while begun.elapsed() < Duration::from_secs(seconds) {
            for stream in &mut open {
                let backend = ask_again(stream).await.context("a connection of the healthy backend")?;
                ensure!(backend == "web-1", "a connection of web-1 went to {backend}");
            }
            sleep(Duration::from_secs(1)).await;
        }
        let (elapsed, after) = (begun.elapsed().as_secs_f64(), sums()?);
        let percent = (cpu_time_of(xlb.pid()?)? - cpu).as_secs_f64() * 100.0 / elapsed;
        let [updates, changes] = [0, 1].map(|it| (after[it] - before[it]) / elapsed);
        println!(
            "a second: {changes:.0} changes of health, {updates:.1} of the maps; {percent:.0} % of a CPU"
        );

        ensure!(changes > 500.0, "too few changes of health to show anything: {changes} in a second");
        ensure!((3.0..=10.0).contains(&updates), "{updates} changes of the maps in a second");
        ensure!(percent <= percent_max, "{percent} % of a CPU");
        Ok(())
    })
}
