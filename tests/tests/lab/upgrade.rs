//! Upgrades to builds whose maps have different layouts, and downgrades.
//!
//! `cargo xtask test lab` makes these builds: the tree with the patches of `tests/layouts/`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::datapath::shapes::pin_name;
use serde_json::Value;
use tests::lab::{Daemon, Family, Lab, address, daemon::binary, wait::join};

use crate::{
    stage::new_flows,
    survival::{CONNECTIONS, ECHO, FULL_NAT, open, two_modes, wait_for_a_byte_on_each},
};

/// Limit for the time without a new connection during an upgrade, and after an interrupted one is repaired.
pub const PAUSE: Duration = Duration::from_secs(1);
/// Interfaces, on which the program is replaced one after the other.
const INTERFACES: usize = 2;
/// Limit for the time until a new connection is served at all.
const SERVED: Duration = Duration::from_secs(20);

#[test]
fn connections_and_changes_by_commands_survive_another_layout_of_the_services_and_the_way_back() -> Result<()>
{
    const ADDED: u16 = 7778;

    let (lab, config) = two_modes("upgrade")?;
    let (_echoes, _added) = (lab.tcp_echoes(ECHO)?, lab.tcp_echoes(ADDED)?);
    let mut xlb = lab.start(&config)?;
    let added = lab.backends[0].address.port(Family::V4, ADDED).to_string();
    xlb.run(&["backend", "add", "full-nat/added", &added])?;
    xlb.run(&["backend", "remove", "nat/web-3-v6"])?;
    xlb.run(&["backend", "weight", "nat/web-1", "50"])?;
    xlb.wait_until_all_are_up()?;
    let live = open(&lab)?;
    xlb.run(&["backend", "drain", "full-nat/web-2"])?;
    let changed = backends(&xlb)?;
    for backend in ["full-nat/added ready 100", "full-nat/web-2 drain 100", "nat/web-1 ready 50"] {
        assert!(changed.iter().any(|it| it == backend), "{backend}: {changed:?}");
    }
    assert!(!changed.iter().any(|it| it.starts_with("nat/web-3-v6 ")), "{changed:?}");
    let before = new_flows(&xlb, "full-nat", "web-2")?;
    let services = lab.pins().join(pin_name("SERVICES"));
    assert!(services.exists());

    for (build, has_our_layout) in [(variant("services")?, false), (binary()?, true)] {
        let new = new_connections_during(&lab, || replace(&mut xlb, &build))?;
        println!("{}: {new:?}", build.display());
        assert_eq!(new.failed, [""; 0]);
        assert!(new.pause < PAUSE, "{:?} without a new connection", new.pause);
        assert_eq!(services.exists(), has_our_layout, "{}", build.display());
        assert_eq!(backends(&xlb)?, changed, "{}", build.display());
        wait_for_a_byte_on_each(&live)?;
    }

    assert_eq!(new_flows(&xlb, "full-nat", "web-2")?, before, "a drained backend gets no new flow");
    live.into_iter().try_for_each(|connections| connections.finish_unbroken().map(drop))?;
    let log = lab.log()?;
    let copies = log.lines().filter(|line| line.contains("SERVICES") && line.contains("contents copied"));
    assert_eq!(copies.count(), 2, "{log}");
    assert!(!log.contains("flows lost"), "{log}");
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

    let new = new_connections_during(&lab, || replace(&mut xlb, &record))?;

    println!("{new:?}");
    assert!(
        new.failed.len() <= INTERFACES,
        "a flow is lost when the program of an interface changes: {new:?}"
    );
    assert!(new.pause < PAUSE, "{:?} without a new connection", new.pause);
    let log = lab.log()?;
    let lost = log.lines().find_map(|line| line.split_once(" IPv4 flows lost"));
    let (before, _) = lost.with_context(|| format!("the log has no line about lost flows: {log}"))?;
    let lost: usize = before.rsplit(' ').next().unwrap_or_default().parse()?;
    assert!(lost >= CONNECTIONS, "{CONNECTIONS} flows were open, and the log says that {lost} are lost");
    Ok(())
}

/// Each backend, with its admin state and weight.
fn backends(xlb: &Daemon) -> Result<Vec<String>> {
    let list = xlb.json(&["backend", "list"])?;
    let line = |it: &Value| {
        let text = |key: &str| it[key].as_str().with_context(|| format!("a backend without {key}: {it}"));
        Ok(format!("{}/{} {} {}", text("service")?, text("name")?, text("admin_state")?, it["weight"]))
    };
    list.as_array().into_iter().flatten().map(line).collect()
}

/// Replaces the running build by another one. Counters must go on from where they were.
fn replace(xlb: &mut Daemon, build: &Path) -> Result<()> {
    let before = forwarded(xlb)?;
    xlb.stop()?;
    xlb.start_again_as(build)?;
    let after = forwarded(xlb)?;
    ensure!(after > before, "{before} packets were forwarded before the start, and {after} after it");
    Ok(())
}

/// Connections made one after the other.
#[derive(Debug)]
struct NewConnections {
    served: usize,
    /// Why those failed that were not served.
    failed: Vec<String>,
    /// The longest time between two that were served.
    pause: Duration,
}

/// Makes connections during an upgrade, and at least one after it.
fn new_connections_during(lab: &Lab, upgrade: impl FnOnce() -> Result<()>) -> Result<NewConnections> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| lab.client.inside(|| new_connections(&is_over)));
        let upgraded = upgrade();
        is_over.store(true, Ordering::Relaxed);
        let made = join(client);
        upgraded.and(made)
    })
}

fn new_connections(is_over: &AtomicBool) -> Result<NewConnections> {
    let mut last = Instant::now();
    let mut made = NewConnections { served: 0, failed: Vec::new(), pause: Duration::ZERO };
    loop {
        let was_over = is_over.load(Ordering::Relaxed);
        match serve() {
            Ok(()) => {
                made.served += 1;
                made.pause = made.pause.max(last.elapsed());
                last = Instant::now();
                if was_over {
                    return Ok(made);
                }
            }
            Err(error) => made.failed.push(format!("{error:#}")),
        }
        ensure!(last.elapsed() < SERVED, "no new connection is served: {made:?}");
    }
}

/// Opens a connection, and has a byte echoed.
pub fn serve() -> Result<()> {
    // A lost SYN is sent again after a second (RFC 6298), so it counts as a failure.
    const LIMIT: Duration = Duration::from_millis(500);
    let address = address::SERVICE.port(Family::V4, FULL_NAT);
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"x").context("send")?;
    stream.read_exact(&mut [0]).context("receive")
}

/// The build with a patch of `tests/layouts/`.
pub fn variant(patch: &str) -> Result<PathBuf> {
    let path = tests::lab::workspace().join("target/layouts").join(patch).join("xlb");
    ensure!(path.exists(), "{} does not exist: `cargo xtask test lab` makes it", path.display());
    Ok(path)
}

/// Packets that were forwarded to all backends.
pub fn forwarded(xlb: &Daemon) -> Result<f64> {
    Ok(xlb.metrics()?.sum("xlb_backend_forwarded_packets_total", &[]))
}
