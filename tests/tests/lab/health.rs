//! Backends that fail: how soon health checks notice, and which requests are served meanwhile.

use std::{
    sync::OnceLock,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Tally, Topology, Visit, address,
    config::{Check, Service},
    eventually,
    visit::SYN_AGAIN,
    visit_while,
    wait::{self, SOON},
};

use crate::stage::{ECHO, Stage, assert_served_by, new_flows};

/// Time limit of a connection: several to the dead backend time out, one after the other, before the checks detect it.
const PATIENCE: Duration = Duration::from_millis(400);
/// Maximum number of connections from the port of one that timed out: its half-open flow still exists, so no other is
/// counted.
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
fn a_backend_that_accepts_and_does_not_answer_is_detected_by_http_checks() -> Result<()> {
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
    const INTERVAL: Duration = Duration::from_secs(60);
    const FIRST_CHECK: Duration = Duration::from_secs(2);
    const ECHO_BACKEND: u16 = 7777;

    let lab = Lab::build(&Topology::new("rare", Shape::TwoNics))?;
    let (_web, _echoes) = (lab.web_servers()?, lab.tcp_echoes(ECHO_BACKEND)?);
    let mut config = Config::web(&lab, Mode::FullNat);
    config.services[0].health.interval = INTERVAL;
    let xlb = lab.start(&config)?;

    xlb.wait_until_all_are_up()?;
    assert_served_by(&lab, 3)?;

    let address = lab.backends[1].address.port(Family::V4, 8080).to_string();
    xlb.run(&["backend", "remove", "web/web-2"])?;
    xlb.run(&["backend", "add", "web/again", &address])?;
    eventually(SOON, "web/again is up", || Ok(xlb.health("web", "again")? == "up"))?;

    // A renamed service keeps its health; a new one has none before its first check.
    config.services[0].name = "shop".to_owned();
    let mut new = Service::over(&lab, "echo", Protocol::Tcp, Mode::FullNat, ECHO, ECHO_BACKEND);
    new.health.interval = INTERVAL;
    xlb.write(&config.service(new))?;
    xlb.run(&["reload"])?;
    let reloaded = Instant::now();
    xlb.wait_until_all_are_up()?;
    assert!(reloaded.elapsed() < FIRST_CHECK, "all were up after {:?}", reloaded.elapsed());
    Ok(())
}

/// Visits go on while web-2 fails. Of the connections that begin within the promised time, no more fail than were sent
/// to web-2. Of later ones, none fails and none is sent to web-2.
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

    // A visit from the port of one that timed out would belong to that flow, to web-2. So later visits have other
    // ports.
    lab.client.sysctl(PORTS, "32768 65535")?;

    let given = given()?;
    for number in 0..Family::ALL.len() {
        let (early, late, went_there) = (&early[number], &late[number], given[number] - before[number]);
        println!("{went_there} went to web-2; before it was due: {early}\nafter: {late}");
        assert!(early.failed() > 0, "no connection failed: {early}");
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
    running.map(wait::join).into_iter().collect()
}

fn wait_for_health(xlb: &Daemon, backend: &str, health: &str) -> Result<()> {
    for name in [backend.to_owned(), format!("{backend}-v6")] {
        eventually(SOON, &format!("{name} is {health}"), || Ok(xlb.health("web", &name)? == health))?;
    }
    Ok(())
}
