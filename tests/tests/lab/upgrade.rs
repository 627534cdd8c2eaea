//! Upgrades to builds whose maps have other layouts, and downgrades.
//!
//! `cargo xtask test lab` makes these builds: the tree with the patches of `tests/layouts/`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{net::Protocol, service::Mode};
use lb_userspace::datapath::shapes::pin_name;
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, address, config::Service, daemon::binary, wait::join,
};

use crate::survival::{CONNECTIONS, ECHO, FULL_NAT, NAT, open, wait_for_a_byte_on_each};

/// Limit for the time without a new connection during an upgrade.
const PAUSE: Duration = Duration::from_secs(1);
/// Limit for the time until a new connection is served at all.
const SERVED: Duration = Duration::from_secs(20);

#[test]
fn a_thousand_connections_survive_another_layout_of_the_services_and_the_way_back() -> Result<()> {
    let (lab, config) = two_modes("upgrade")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let mut xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let live = open(&lab)?;
    let services = lab.pins().join(pin_name("SERVICES"));
    assert!(services.exists());
    let forwarded_before = forwarded(&xlb)?;

    for (build, has_our_layout) in [(variant("services")?, false), (binary()?, true)] {
        let pause = longest_pause_during(&lab, || {
            xlb.stop()?;
            xlb.start_again_as(&build)
        })?;
        println!("{}: the longest time without a new connection: {pause:?}", build.display());
        assert!(pause < PAUSE, "{pause:?} without a new connection");
        assert_eq!(services.exists(), has_our_layout, "{}", build.display());
        wait_for_a_byte_on_each(&live)?;
    }

    assert!(forwarded(&xlb)? > forwarded_before, "the counters continue");
    for connections in live {
        let report = connections.finish()?;
        assert!(report.broken.is_empty(), "{report}");
    }
    let log = lab.log()?;
    let copies = log.lines().filter(|line| line.contains("SERVICES") && line.contains("contents are copied"));
    assert_eq!(copies.count(), 2, "{log}");
    assert!(!log.contains("flows are lost"), "{log}");
    Ok(())
}

#[test]
fn another_layout_of_the_flow_record_costs_the_flows_and_services_serve_again_at_once() -> Result<()> {
    let (lab, config) = two_modes("record")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let mut xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let _live = lab.live(Family::V4, FULL_NAT, CONNECTIONS)?;
    let record = variant("record")?;

    let pause = longest_pause_during(&lab, || {
        xlb.stop()?;
        xlb.start_again_as(&record)
    })?;

    println!("the longest time without a new connection: {pause:?}");
    assert!(pause < PAUSE, "{pause:?} without a new connection");
    let log = lab.log()?;
    let lost = log.lines().find_map(|line| line.split_once(" IPv4 flows are lost"));
    let (before, _) = lost.with_context(|| format!("the log has no line about lost flows: {log}"))?;
    let lost: usize = before.rsplit(' ').next().unwrap_or_default().parse()?;
    assert!(lost >= CONNECTIONS, "{CONNECTIONS} flows were open, and the log says that {lost} are lost");
    Ok(())
}

/// Makes one connection after another during an upgrade, and at least one after it. Returns the longest time between two
/// that were served.
fn longest_pause_during(lab: &Lab, upgrade: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| lab.client.inside(|| longest_pause(&is_over)));
        let upgraded = upgrade();
        is_over.store(true, Ordering::Relaxed);
        let longest = join(client);
        upgraded.and(longest)
    })
}

fn longest_pause(is_over: &AtomicBool) -> Result<Duration> {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let was_over = is_over.load(Ordering::Relaxed);
        let served = is_served();
        ensure!(last.elapsed() < SERVED, "no new connection is served: {served:?}");
        if served.is_ok() {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            if was_over {
                return Ok(longest);
            }
        }
    }
}

/// Opens a connection, and has a byte echoed.
fn is_served() -> Result<()> {
    const LIMIT: Duration = Duration::from_millis(200);
    let mut stream = TcpStream::connect_timeout(&address::SERVICE.port(Family::V4, FULL_NAT), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"x")?;
    Ok(stream.read_exact(&mut [0])?)
}

/// A service with full-nat and one with nat.
fn two_modes(tag: &'static str) -> Result<(Lab, Config)> {
    let lab = Lab::build(&Topology::new(tag, Shape::TwoNics).mode(Mode::Nat))?;
    let config = Config::new(&lab)
        .service(Service::over(&lab, "full-nat", Protocol::Tcp, Mode::FullNat, FULL_NAT, ECHO))
        .service(Service::over(&lab, "nat", Protocol::Tcp, Mode::Nat, NAT, ECHO));
    Ok((lab, config))
}

/// The build with a patch of `tests/layouts/`.
fn variant(patch: &str) -> Result<PathBuf> {
    let path = tests::lab::workspace().join("target/layouts").join(patch).join("xlb");
    ensure!(path.exists(), "{} does not exist: `cargo xtask test lab` makes it", path.display());
    Ok(path)
}

/// Packets that were forwarded to all backends.
fn forwarded(xlb: &Daemon) -> Result<f64> {
    Ok(xlb.metrics()?.sum("xlb_backend_forwarded_packets_total", &[]))
}
