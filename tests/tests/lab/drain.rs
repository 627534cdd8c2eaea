//! Backends that are drained or in maintenance: what happens to their connections.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, address,
    config::Service,
    eventually,
    wait::{SOON, join},
};

use crate::stage::{ECHO, Stage, new_flows};

#[test]
fn a_drained_backend_keeps_its_connections_and_gets_no_other() -> Result<()> {
    let Stage { lab, xlb, .. } = Stage::echo("drained")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    xlb.wait_until_all_are_up()?;
    let live = lab.live(Family::V4, ECHO, 30)?;
    // The count may have started a second before the request.
    eventually(SOON, "web-2 has its third of the flows", || Ok(flows(&xlb, "web-2")? == 10))?;

    xlb.run(&["backend", "drain", "echo/web-2"])?;
    let later = lab.live(Family::V4, ECHO, 30)?;
    live.wait_for_bytes(2)?;

    eventually(SOON, "web-2 has got no other flow", || {
        Ok([flows(&xlb, "web-1")?, flows(&xlb, "web-2")?, flows(&xlb, "web-3")?] == [25, 10, 25])
    })?;
    live.finish_unbroken()?;
    later.finish_unbroken()?;
    xlb.run(&["backend", "ready", "echo/web-2"])?;
    lab.live(Family::V4, ECHO, 30)?.finish_unbroken()?;
    assert_eq!(new_flows(&xlb, "echo", "web-2")?, 20);
    Ok(())
}

#[test]
fn a_drain_waits_for_connections_of_any_age_with_and_without_a_scraper() -> Result<()> {
    let Stage { lab, xlb, .. } = Stage::echo("waited")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    xlb.wait_until_all_are_up()?;

    for (is_scraped, seconds) in [(false, 0), (false, 2), (true, 0), (true, 1), (true, 10)] {
        while_scraped(&xlb, is_scraped, || drain_under_connections(&lab, &xlb, seconds))?;
    }
    Ok(())
}

#[test]
fn a_drain_waits_for_datagrams_flows_of_any_age_with_and_without_a_scraper() -> Result<()> {
    let lab = Lab::build(&Topology::new("datagrams", Shape::TwoNics).backends(1))?;
    let _echoes = lab.udp_echoes(ECHO)?;
    let service = Service::over(&lab, "echo", Protocol::Udp, Mode::FullNat, ECHO, ECHO);
    let xlb = lab.start(&Config::new(&lab).service(service.only(Family::V4)))?;
    xlb.wait_until_all_are_up()?;

    for (is_scraped, seconds) in [(false, 0), (true, 0), (false, 10)] {
        while_scraped(&xlb, is_scraped, || drain_under_datagrams(&lab, &xlb, seconds))?;
    }
    Ok(())
}

#[test]
fn a_backend_in_maintenance_loses_its_connections_and_no_other_does() -> Result<()> {
    let Stage { lab, xlb, .. } = Stage::echo("maint")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    xlb.wait_until_all_are_up()?;
    let live = lab.live(Family::V4, ECHO, 30)?;

    xlb.run(&["backend", "maint", "echo/web-2"])?;
    eventually(SOON, "web-2 has no flow", || Ok(flows(&xlb, "web-2")? == 0))?;
    live.wait_for_bytes_on(20, 2)?;
    let later = lab.live(Family::V4, ECHO, 30)?;

    assert_eq!(flows(&xlb, "web-2")?, 0);
    later.finish_unbroken()?;
    // The clients of web-2 are not notified: they wait for their echo in vain.
    let report = live.finish()?;
    assert_eq!(report.broken.len(), 10, "{report}");
    Ok(())
}

/// Drains web-2 when its ten connections have this age, and again when they are closed.
fn drain_under_connections(lab: &Lab, xlb: &Daemon, seconds: u64) -> Result<()> {
    let live = lab.live(Family::V4, ECHO, 30)?;
    live.wait_for_bytes(seconds)?;

    let waited = xlb.output(&["backend", "drain", "echo/web-2", "--wait=4s"])?;

    assert_eq!(waited.code, 1, "connections {seconds} s old: {}", waited.stderr);
    assert!(waited.stderr.contains("10 flows left after 4s"), "{}", waited.stderr);
    live.finish_unbroken()?;
    xlb.run(&["backend", "drain", "echo/web-2", "--wait=20s"])?;
    assert_eq!(flows(xlb, "web-2")?, 0);
    xlb.run(&["backend", "ready", "echo/web-2"])?;
    Ok(())
}

/// Drains web-1 when its flow of datagrams has this age, and again when the flow is gone.
fn drain_under_datagrams(lab: &Lab, xlb: &Daemon, seconds: u64) -> Result<()> {
    assert!(ask_by_datagram(lab)?, "the service answers");
    thread::sleep(Duration::from_secs(seconds));

    let waited = xlb.output(&["backend", "drain", "echo/web-1", "--wait=4s"])?;

    assert_eq!(waited.code, 1, "a flow {seconds} s old: {}", waited.stderr);
    assert!(waited.stderr.contains("1 flow left after 4s"), "{}", waited.stderr);
    xlb.run(&["backend", "maint", "echo/web-1"])?;
    xlb.run(&["backend", "drain", "echo/web-1", "--wait=20s"])?;
    xlb.run(&["backend", "ready", "echo/web-1"])?;
    Ok(())
}

fn while_scraped(xlb: &Daemon, is_scraped: bool, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let scraper = is_scraped.then(|| scope.spawn(|| scrape_until(xlb, &is_over)));
        let acted = act();
        is_over.store(true, Ordering::Relaxed);
        let scraped = scraper.map(join);
        acted.and(scraped.unwrap_or(Ok(())))
    })
}

/// Scrapes without a pause: more often than a monitoring system would.
fn scrape_until(xlb: &Daemon, is_over: &AtomicBool) -> Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        xlb.metrics()?;
    }
    Ok(())
}

/// Sends from one port until there is an answer: the client's neighbour entry may not be there yet.
fn ask_by_datagram(lab: &Lab) -> Result<bool> {
    let socket = lab.client.inside(|| {
        let socket = UdpSocket::bind((lab.clients[0].of(Family::V4), 20_000))?;
        socket.connect(address::SERVICE.port(Family::V4, ECHO))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(socket)
    })?;
    Ok((0..5).any(|_| socket.send(b"hello").is_ok() && socket.recv(&mut [0; 64]).is_ok()))
}

fn flows(xlb: &Daemon, backend: &str) -> Result<u64> {
    let all = xlb.json(&["backend", "list", "echo"])?;
    let found = all.as_array().into_iter().flatten().find(|it| it["name"] == backend);
    Ok(found.and_then(|it| it["flows"].as_u64()).unwrap_or_default())
}
