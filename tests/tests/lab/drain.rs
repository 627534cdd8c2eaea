//! Backends that are drained or in maintenance: what happens to their connections.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, address,
    config::Service,
    echo::Server,
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
fn a_drain_waits_for_flows_of_any_age_with_and_without_a_scraper() -> Result<()> {
    let lab = Lab::build(&Topology::new("waited", Shape::TwoNics))?;
    let mut config = Config::new(&lab);
    let mut echoes = Vec::new();
    for drain in &DRAINS {
        echoes.push(drain.echoes(&lab)?);
        config = config.service(drain.service(&lab));
    }
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;

    for is_scraped in [false, true] {
        while_scraped(&xlb, is_scraped, || at_once(&DRAINS, |drain| drain.run(&lab, &xlb)))
            .with_context(|| format!("is scraped: {is_scraped}"))?;
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
    let report = live.finish()?;
    assert_eq!(report.broken.len(), 10, "{report}");
    assert!(report.broken.iter().all(|why| why.contains("reset")), "{report}");
    Ok(())
}

/// A drain of a backend whose flows have an age, in a service of its own.
struct Drain {
    protocol: Protocol,
    family: Family,
    seconds: u64,
    port: u16,
}

const DRAINS: [Drain; 8] = [
    Drain { protocol: Protocol::Tcp, family: Family::V4, seconds: 0, port: 100 },
    Drain { protocol: Protocol::Tcp, family: Family::V4, seconds: 1, port: 101 },
    Drain { protocol: Protocol::Tcp, family: Family::V4, seconds: 2, port: 102 },
    Drain { protocol: Protocol::Tcp, family: Family::V4, seconds: 10, port: 103 },
    Drain { protocol: Protocol::Udp, family: Family::V4, seconds: 0, port: 104 },
    Drain { protocol: Protocol::Udp, family: Family::V4, seconds: 10, port: 105 },
    Drain { protocol: Protocol::Tcp, family: Family::V6, seconds: 10, port: 106 },
    Drain { protocol: Protocol::Udp, family: Family::V6, seconds: 0, port: 107 },
];

impl Drain {
    fn name(&self) -> String {
        format!("{:?}-{:?}-{}s", self.protocol, self.family, self.seconds).to_lowercase()
    }

    fn echoes(&self, lab: &Lab) -> Result<Vec<Server>> {
        match self.protocol {
            Protocol::Tcp => lab.tcp_echoes(self.port),
            Protocol::Udp => lab.udp_echoes(self.port),
        }
    }

    /// A service with one backend for datagrams, or three for connections.
    fn service(&self, lab: &Lab) -> Service {
        let service = Service::over(lab, &self.name(), self.protocol, Mode::FullNat, self.port, self.port);
        let mut service = service.only(self.family);
        if self.protocol == Protocol::Udp {
            service.backends.truncate(1);
        }
        service
    }

    fn run(&self, lab: &Lab, xlb: &Daemon) -> Result<()> {
        let drained = match self.protocol {
            Protocol::Tcp => self.under_connections(lab, xlb),
            Protocol::Udp => self.under_datagrams(lab, xlb),
        };
        drained.with_context(|| self.name())
    }

    /// Drains web-2 when its ten connections have this age, and again when they are closed.
    fn under_connections(&self, lab: &Lab, xlb: &Daemon) -> Result<()> {
        let backend = self.backend("web-2");
        let live = lab.live(self.family, self.port, 30)?;
        (0..self.seconds).try_for_each(|_| live.wait_for_bytes(1))?;

        self.wait_in_vain(xlb, &backend, "10 flows left after 4s")?;
        live.finish_unbroken()?;
        xlb.run(&["backend", "drain", &backend, "--wait=20s"])?;
        let all = xlb.json(&["backend", "list", &self.name()])?;
        let mut flows = all.as_array().into_iter().flatten().map(|backend| &backend["flows"]);
        ensure!(flows.all(|flows| flows == 0), "flows are left: {all}");
        xlb.run(&["backend", "ready", &backend])?;
        Ok(())
    }

    /// Drains web-1 when its flow of datagrams has this age, and again when the flow is gone.
    fn under_datagrams(&self, lab: &Lab, xlb: &Daemon) -> Result<()> {
        let backend = self.backend("web-1");
        ensure!(self.ask_by_datagram(lab)?, "the service does not answer");
        thread::sleep(Duration::from_secs(self.seconds));

        self.wait_in_vain(xlb, &backend, "1 flow left after 4s")?;
        xlb.run(&["backend", "maint", &backend])?;
        xlb.run(&["backend", "drain", &backend, "--wait=20s"])?;
        xlb.run(&["backend", "ready", &backend])?;
        Ok(())
    }

    fn wait_in_vain(&self, xlb: &Daemon, backend: &str, message: &str) -> Result<()> {
        let waited = xlb.output(&["backend", "drain", backend, "--wait=4s"])?;
        ensure!(waited.code == 1 && waited.stderr.contains(message), "{}: {}", waited.code, waited.stderr);
        Ok(())
    }

    /// `SERVICE/BACKEND`
    fn backend(&self, name: &str) -> String {
        match self.family {
            Family::V4 => format!("{}/{name}", self.name()),
            Family::V6 => format!("{}/{name}-v6", self.name()),
        }
    }

    /// Sends from one port until there is an answer: the client's neighbour entry may not be there yet.
    fn ask_by_datagram(&self, lab: &Lab) -> Result<bool> {
        let socket = lab.client.inside(|| {
            let socket = UdpSocket::bind((lab.clients[0].of(self.family), 0))?;
            socket.connect(address::SERVICE.port(self.family, self.port))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(socket)
        })?;
        Ok((0..5).any(|_| socket.send(b"hello").is_ok() && socket.recv(&mut [0; 64]).is_ok()))
    }
}

/// Does something with all of them, at the same time.
fn at_once<T: Sync>(all: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let started: Vec<_> = all.iter().map(|it| scope.spawn(|| act(it))).collect();
        // All of them end before the scope does.
        started.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
    })
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

fn flows(xlb: &Daemon, backend: &str) -> Result<u64> {
    let all = xlb.json(&["backend", "list", "echo"])?;
    let found = all.as_array().into_iter().flatten().find(|it| it["name"] == backend);
    Ok(found.and_then(|it| it["flows"].as_u64()).unwrap_or_default())
}
