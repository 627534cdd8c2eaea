//! Backends come and go: who gets new connections, from when on, and what becomes of the old ones.

use std::{
    fs,
    net::UdpSocket,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Tally, Topology, Visit, Web, address,
    config::{Check, Service},
    eventually, visit_while,
};

const ECHO: u16 = 7;
/// For what has no deadline of its own.
const SOON: Duration = Duration::from_secs(5);
/// For a visit that may be to nobody: several fail, one after the other, until the checks have noticed.
const PATIENCE: Duration = Duration::from_millis(400);
/// Less than TCP waits before it sends a lost SYN again (RFC 6298, 2.1: 1 s), which then finds another backend.
const SYN_AGAIN: Duration = Duration::from_millis(900);
/// Visits, at most, from the port of one that gave up: its half-open flow is still there, and no other is counted.
const SAME_PORT: u64 = 5;
/// How long visits go on after a deadline.
const LATE: Duration = Duration::from_millis(500);

#[test]
fn a_killed_backend_gets_no_connection_once_its_checks_had_time_to_fail() -> Result<()> {
    let Stage { lab, mut web, config, xlb } = Stage::web("killed")?;

    let promised = config.services[0].health.notices_refusal_within();
    strike_web_2_under_load(&lab, &xlb, promised, || web[1].kill())?;

    assert_served_by(&lab, 2)?;
    web[1].start_again()?;
    wait_for_health(&xlb, "web-2", "up")?;
    assert_served_by(&lab, 3)
}

#[test]
fn a_silent_backend_gets_no_connection_once_its_checks_had_time_to_time_out() -> Result<()> {
    let Stage { lab, web, config, xlb } = Stage::web("silent")?;

    let promised = config.services[0].health.notices_silence_within();
    strike_web_2_under_load(&lab, &xlb, promised, || web[1].backend.namespace.silence())?;

    assert_served_by(&lab, 2)?;
    web[1].backend.namespace.listen_again()?;
    wait_for_health(&xlb, "web-2", "up")?;
    assert_served_by(&lab, 3)
}

#[test]
fn a_backend_that_accepts_and_does_not_answer_is_found_out_by_http() -> Result<()> {
    let Stage { lab, web, mut config, xlb } = Stage::web("frozen")?;
    config.services[0].health.check = Check::Http { path: "/healthz" };
    xlb.write(&config)?;
    xlb.run(&["reload"])?;
    xlb.wait_until_all_are_up()?;

    let promised = config.services[0].health.notices_silence_within();
    strike_web_2_under_load(&lab, &xlb, promised, || web[1].freeze())?;

    assert_served_by(&lab, 2)?;
    web[1].thaw()?;
    wait_for_health(&xlb, "web-2", "up")?;
    assert_served_by(&lab, 3)
}

#[test]
fn a_long_interval_delays_neither_the_first_check_nor_that_of_a_new_or_changed_backend() -> Result<()> {
    let lab = Lab::build(&Topology::new("rare", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    let mut config = Config::web(&lab, Mode::FullNat);
    config.services[0].health.interval = Duration::from_secs(60);
    let xlb = lab.start(&config)?;

    xlb.wait_until_all_are_up()?;
    assert_served_by(&lab, 3)?;

    let address = lab.backends[1].address.port(Family::V4, 8080).to_string();
    xlb.run(&["backend", "remove", "web/web-2"])?;
    xlb.run(&["backend", "add", "web/again", &address])?;
    eventually(SOON, "web/again is up", || Ok(xlb.health("web", "again")? == "up"))?;

    // Under another name it is a new service.
    config.services[0].name = "shop".to_owned();
    xlb.write(&config)?;
    xlb.run(&["reload"])?;
    eventually(SOON, "shop/web-1 is up", || Ok(xlb.health("shop", "web-1")? == "up"))?;
    xlb.wait_until_all_are_up()
}

#[test]
fn a_drained_backend_keeps_its_connections_and_gets_no_other() -> Result<()> {
    let Stage { lab, xlb, .. } = Stage::echo("drained")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    xlb.wait_until_all_are_up()?;
    let live = lab.live(Family::V4, ECHO, 30)?;
    // A count may have begun a second before it is asked for.
    eventually(SOON, "web-2 has its third of the flows", || Ok(flows(&xlb, "web-2")? == 10))?;

    xlb.run(&["backend", "drain", "echo/web-2"])?;
    let later = lab.live(Family::V4, ECHO, 30)?;
    live.wait_for_bytes(2)?;

    eventually(SOON, "web-2 has got no other flow", || {
        Ok([flows(&xlb, "web-1")?, flows(&xlb, "web-2")?, flows(&xlb, "web-3")?] == [25, 10, 25])
    })?;
    for report in [live.finish()?, later.finish()?] {
        assert!(report.broken.is_empty(), "{report}");
    }
    xlb.run(&["backend", "ready", "echo/web-2"])?;
    let again = lab.live(Family::V4, ECHO, 30)?;
    assert!(again.finish()?.broken.is_empty());
    assert_eq!(new_flows(&xlb, "echo", "web-2")?, 20);
    Ok(())
}

#[test]
fn a_drain_waits_for_connections_of_any_age_with_and_without_a_scraper() -> Result<()> {
    let Stage { lab, xlb, .. } = Stage::echo("waited")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    xlb.wait_until_all_are_up()?;

    for (is_scraped, seconds) in [(false, 0), (false, 2), (true, 0), (true, 1), (true, 5)] {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| -> Result<()> {
            let scraper = is_scraped.then(|| scope.spawn(|| scrape_until(&xlb, &is_over)));
            let drained = drain_under_connections(&lab, &xlb, seconds);
            is_over.store(true, Ordering::Relaxed);
            let scraped =
                scraper.map(|it| it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            drained.and(scraped.unwrap_or(Ok(())))
        })?;
    }
    Ok(())
}

#[test]
fn a_drain_waits_for_datagrams_flows() -> Result<()> {
    let lab = Lab::build(&Topology::new("datagrams", Shape::TwoNics).backends(1))?;
    let _echoes = lab.udp_echoes(ECHO)?;
    let service = Service::over(&lab, "echo", Protocol::Udp, Mode::FullNat, ECHO, ECHO);
    let xlb = lab.start(&Config::new(&lab).service(service.only(Family::V4)))?;
    xlb.wait_until_all_are_up()?;
    assert!(ask_by_datagram(&lab)?, "the service answers");

    let waited = xlb.output(&["backend", "drain", "echo/web-1", "--wait=4s"])?;

    assert_eq!(waited.code, 1, "{}", waited.stderr);
    assert!(waited.stderr.contains("1 flow left after 4s"), "{}", waited.stderr);
    xlb.run(&["backend", "maint", "echo/web-1"])?;
    xlb.run(&["backend", "drain", "echo/web-1", "--wait=20s"])?;
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
    assert!(later.finish()?.broken.is_empty());
    // The clients of web-2 are not told: they wait for their echo in vain.
    let report = live.finish()?;
    assert_eq!(report.broken.len(), 10, "{report}");
    Ok(())
}

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
        let tally = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        shares.map(|()| tally)
    })?;

    // Removing a backend ends its flows, and some requests were under way on it.
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
        let tally = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        shares.map(|()| tally)
    })?;

    assert_eq!(tally.failed(), 0, "{tally}");
    assert!(tally.of("web-4") > 0, "{tally}");
    Ok(())
}

#[test]
fn what_commands_changed_outlives_the_daemon_until_the_file_says_otherwise() -> Result<()> {
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

    let left = ["web/web-1: drain (the file has it no longer)", differences[2], differences[3]];
    eventually(SOON, "the file wins where it has changed", || Ok(overlay(&xlb)? == left))?;
    let log = fs::read_to_string(lab.directory().join("xlb.log"))?;
    let said = "web/web-2: the file has changed it and wins: `weight 0 (file: 100)` is forgotten";
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

/// Drains web-2 when its ten connections are so old, and again when they are closed.
fn drain_under_connections(lab: &Lab, xlb: &Daemon, seconds: u64) -> Result<()> {
    let live = lab.live(Family::V4, ECHO, 30)?;
    live.wait_for_bytes(seconds)?;

    let waited = xlb.output(&["backend", "drain", "echo/web-2", "--wait=4s"])?;

    assert_eq!(waited.code, 1, "connections {seconds} s old: {}", waited.stderr);
    assert!(waited.stderr.contains("10 flows left after 4s"), "{}", waited.stderr);
    let report = live.finish()?;
    assert!(report.broken.is_empty(), "{report}");
    xlb.run(&["backend", "drain", "echo/web-2", "--wait=20s"])?;
    assert_eq!(flows(xlb, "web-2")?, 0);
    xlb.run(&["backend", "ready", "echo/web-2"])?;
    Ok(())
}

/// As often as can be: more than a monitoring system would.
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
        socket.set_read_timeout(Some(SYN_AGAIN))?;
        Ok(socket)
    })?;
    Ok((0..5).any(|_| socket.send(b"hello").is_ok() && socket.recv(&mut [0; 64]).is_ok()))
}

struct Stage {
    web: Vec<Web>,
    config: Config,
    xlb: Daemon,
    lab: Lab,
}

impl Stage {
    /// Three web servers, all up.
    fn web(tag: &'static str) -> Result<Self> {
        let lab = Lab::build(&Topology::new(tag, Shape::TwoNics))?;
        let web = lab.web_servers()?;
        let config = Config::web(&lab, Mode::FullNat);
        let xlb = lab.start(&config)?;
        xlb.wait_until_all_are_up()?;
        assert_served_by(&lab, 3)?;
        Ok(Self { web, config, xlb, lab })
    }

    /// A service `echo` on three backends, whose servers are not started.
    fn echo(tag: &'static str) -> Result<Self> {
        let lab = Lab::build(&Topology::new(tag, Shape::TwoNics))?;
        let config =
            Config::new(&lab).service(Service::over(&lab, "echo", Protocol::Tcp, Mode::FullNat, ECHO, ECHO));
        let xlb = lab.start(&config)?;
        Ok(Self { web: Vec::new(), config, xlb, lab })
    }
}

/// Visits go on while web-2 is struck. Of those that begin within the promised time no more fail than went to web-2; of
/// those that begin later none fails, and none goes there.
fn strike_web_2_under_load(
    lab: &Lab,
    xlb: &Daemon,
    promised: Duration,
    strike: impl FnOnce() -> Result<()>,
) -> Result<()> {
    const PORTS: &str = "net.ipv4.ip_local_port_range";
    let given =
        || -> Result<[u64; 2]> { Ok([new_flows(xlb, "web", "web-2")?, new_flows(xlb, "web", "web-2-v6")?]) };
    let (before, due) = (given()?, OnceLock::new());
    lab.client.sysctl(PORTS, "1024 32767")?;

    let (early, late) = thread::scope(|scope| -> Result<_> {
        let is_early = || due.get().is_none_or(|due| Instant::now() < *due);
        let early = Family::ALL.map(|family| {
            scope.spawn(move || visit_while(&lab.client, &load(lab, family, PATIENCE), is_early))
        });
        let is_met = || Ok(given()?.iter().zip(before).all(|(now, before)| *now > before));
        let struck = eventually(SOON, "web-2 is visited", is_met).and_then(|_| strike());
        let due = *due.get_or_init(|| Instant::now() + promised);
        struck?;
        thread::sleep(due.saturating_duration_since(Instant::now()));

        let is_late = move || due.elapsed() < LATE;
        let late = Family::ALL.map(|family| {
            scope.spawn(move || visit_while(&lab.client, &load(lab, family, SYN_AGAIN), is_late))
        });
        Ok((join(early)?, join(late)?))
    })?;

    // Whose port is that of a visit that gave up finds its flow, to web-2 and out of turn: what comes later has others.
    lab.client.sysctl(PORTS, "32768 65535")?;

    let given = given()?;
    for number in 0..Family::ALL.len() {
        let (early, late, went_there) = (&early[number], &late[number], given[number] - before[number]);
        println!("{went_there} went to web-2; before it was due: {early}\nafter: {late}");
        assert!(early.failed() > 0, "nobody met it: {early}");
        assert!(
            (early.of("web-2") + early.failed()) as u64 <= went_there + SAME_PORT,
            "{went_there}: {early}"
        );
        assert!(late.failed() == 0 && late.answers.len() == 2 && late.of("web-2") == 0, "{late}");
    }
    Ok(())
}

/// Endless visits that leave the machine some time for others.
fn load(lab: &Lab, family: Family, limit: Duration) -> Visit {
    const AT_ONCE: usize = 32;
    let to = address::SERVICE.port(family, 80);
    Visit { at_once: AT_ONCE, limit, ..Visit::new(&lab.client_addresses(family), to, usize::MAX) }
}

fn join(running: [ScopedJoinHandle<Result<Tally>>; 2]) -> Result<Vec<Tally>> {
    running.map(|it| it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).into_iter().collect()
}

/// 300 requests per family: all answered, in equal shares.
fn assert_served_by(lab: &Lab, backends: usize) -> Result<()> {
    for family in Family::ALL {
        let tally = lab.visit(family, 80, 300)?;
        assert!(tally.is_even(backends), "{family:?}: {tally}");
    }
    Ok(())
}

/// Beside other load, shares of a part of the requests are not equal; but it can be seen who serves.
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

fn wait_for_health(xlb: &Daemon, backend: &str, health: &str) -> Result<()> {
    for name in [backend.to_owned(), format!("{backend}-v6")] {
        eventually(SOON, &format!("{name} is {health}"), || Ok(xlb.health("web", &name)? == health))?;
    }
    Ok(())
}

/// Where file and commands differ.
fn overlay(xlb: &Daemon) -> Result<Vec<String>> {
    let status = xlb.json(&["status"])?;
    let lines = status["overlay"].as_array().into_iter().flatten();
    Ok(lines.filter_map(|line| line.as_str()).map(str::to_owned).collect())
}

fn flows(xlb: &Daemon, backend: &str) -> Result<u64> {
    let all = xlb.json(&["backend", "list", "echo"])?;
    let found = all.as_array().into_iter().flatten().find(|it| it["name"] == backend);
    Ok(found.and_then(|it| it["flows"].as_u64()).unwrap_or_default())
}

fn new_flows(xlb: &Daemon, service: &str, backend: &str) -> Result<u64> {
    let labels = [("service", service), ("backend", backend)];
    Ok(xlb.metrics()?.sum("xlb_backend_new_flows_total", &labels) as u64)
}
