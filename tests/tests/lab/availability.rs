//! What a service with few backends left does: panic, quorum, and the flows of a backend that went down.

use std::thread;

use anyhow::Result;
use lb_common::{ejection::FAILURES, net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, Web, config::Service, eventually, wait::SOON,
};

use crate::stage::{ECHO, new_flows};

/// Three web servers, all up, behind a service with this key.
fn web_with(tag: &'static str, key: &'static str) -> Result<(Lab, Vec<Web>, Config, Daemon)> {
    let lab = Lab::build(&Topology::new(tag, Shape::TwoNics))?;
    let web = lab.web_servers()?;
    let mut config = Config::web(&lab, Mode::FullNat);
    config.services[0].keys.push(key);
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    Ok((lab, web, config, xlb))
}

#[test]
fn in_panic_connections_are_tried_at_all_backends() -> Result<()> {
    const VISITS: usize = 90;
    let (lab, mut web, config, xlb) = web_with("panic", "panic_threshold = 50")?;
    let names = ["web-1", "web-2", "web-3"];
    let counts = || -> Result<Vec<u64>> { names.iter().map(|name| new_flows(&xlb, "web", name)).collect() };
    let shares = || -> Result<Vec<u64>> {
        let before = counts()?;
        lab.visit(Family::V4, 80, VISITS)?;
        Ok(counts()?.iter().zip(before).map(|(after, before)| after - before).collect())
    };

    web[0].kill()?;
    thread::sleep(config.services[0].health.notices_refusal_within());
    let above = shares()?;
    web[1].kill()?;
    eventually(
        SOON,
        "the panic is reported",
        || Ok(warnings(&xlb)?.contains("of its IPv4 backends are up")),
    )?;
    let below = shares()?;

    assert_eq!(above[0], 0, "{above:?}");
    // One of the two that refuse is soon ejected, but not before it has been tried this often.
    assert!(below.iter().all(|flows| *flows >= u64::from(FAILURES)), "{below:?}");
    web[0].start_again()?;
    web[1].start_again()?;
    xlb.wait_until_all_are_up()?;
    assert!(!warnings(&xlb)?.contains("panic"));
    Ok(())
}

#[test]
fn without_its_quorum_a_service_is_not_ready() -> Result<()> {
    // Of six: three in each family.
    let (lab, mut web, _config, xlb) = web_with("quorum", "quorum = 5")?;
    let shows = |code: &str, is_ready: bool| -> Result<bool> {
        let readyz = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9191/readyz"];
        let metric = xlb.metrics()?.sum("xlb_service_ready", &[("service", "web")]);
        Ok(lab.xlb.run(&readyz)? == code
            && metric as u32 == u32::from(is_ready)
            && xlb.json(&["service", "show", "web"])?["ready"] == is_ready)
    };
    assert!(shows("200", true)?);

    web[0].kill()?;
    eventually(SOON, "it is not ready", || shows("503", false))?;
    let check = xlb.output(&["status", "--check"])?;
    web[0].start_again()?;
    eventually(SOON, "it is ready again", || shows("200", true))?;

    assert_eq!(check.code, 2);
    assert!(check.stdout.contains("web is not ready: 4 available, quorum 5"), "{}", check.stdout);
    let log = lab.log()?;
    assert!(log.contains("service is not ready") && log.contains("service is ready"), "{log}");
    Ok(())
}

#[test]
fn with_on_down_reset_the_flows_of_a_dead_backend_end() -> Result<()> {
    let lab = Lab::build(&Topology::new("ended", Shape::TwoNics))?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let mut service = Service::over(&lab, "echo", Protocol::Tcp, Mode::FullNat, ECHO, ECHO);
    service.keys.push("on_down = \"reset\"");
    let xlb = lab.start(&Config::new(&lab).service(service))?;
    xlb.wait_until_all_are_up()?;
    let live = lab.live(Family::V4, ECHO, 30)?;
    let flows = |backend: &str| -> Result<usize> {
        let list = xlb.json(&["flow", "list", "--backend", backend])?;
        Ok(list.as_array().map_or(0, Vec::len))
    };
    assert_eq!(flows("echo/web-2")?, 10);

    lab.backends[1].namespace.silence()?;

    eventually(SOON, "web-2 has no flow", || Ok(flows("echo/web-2")? == 0))?;
    assert_eq!((flows("echo/web-1")?, flows("echo/web-3")?), (10, 10));
    live.wait_for_bytes_on(20, 2)?;
    lab.backends[1].namespace.listen_again()?;
    xlb.wait_until_all_are_up()?;
    assert_eq!(live.finish()?.broken.len(), 10);
    lab.live(Family::V4, ECHO, 30)?.finish_unbroken().map(drop)
}

fn warnings(xlb: &Daemon) -> Result<String> {
    Ok(xlb.json(&["status"])?["warnings"].to_string())
}
