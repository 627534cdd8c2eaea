//! The lab without xlb: plain routing and nftables in its place.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use tests::lab::{
    Family, Lab, Live, Shape, Topology, Visit, address, alone, echo, link, namespace, nftables, sweep, visit,
    web,
};

#[test]
fn requests_reach_the_web_servers_in_turn_and_every_checksum_is_right() -> Result<()> {
    let lab = Lab::build(&Topology::new("itself", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    nftables::balance(&lab)?;
    let capture = lab.capture()?;

    for family in Family::ALL {
        let from: Vec<_> = lab.clients.iter().map(|client| client.of(family)).collect();
        let tally = visit(&lab.client, &Visit::new(&from, address::SERVICE.port(family, 80), 300))?;

        assert!(tally.is_even(3), "{family:?}: {tally}");
    }
    let checksums = capture.finish()?;
    assert!(checksums.verified > 2_000, "{checksums:?}");
    assert!(checksums.wrong.is_empty() && checksums.silent.is_empty(), "{checksums:#?}");
    Ok(())
}

#[test]
fn one_wire_carries_all_hosts() -> Result<()> {
    let lab = Lab::build(&Topology::new("wire", Shape::OneNic))?;
    let _web = lab.web_servers()?;
    nftables::balance(&lab)?;

    for family in Family::ALL {
        let tally = lab.visit(family, 80, 30)?;

        assert!(tally.is_even(3), "{family:?}: {tally}");
    }
    Ok(())
}

#[test]
fn curl_fetches_what_a_web_server_has() -> Result<()> {
    let lab = Lab::build(&Topology::new("itself", Shape::TwoNics).backends(1))?;
    let web = lab.web_servers()?;
    nftables::balance(&lab)?;
    fs::write(lab.directory().join("files/page"), "a page\n")?;

    let page = lab.client.run(&["curl", "-sS", "http://192.0.2.10/files/page"])?;
    let page_v6 = lab.client.run(&["curl", "-sS", "http://[2001:db8::10]/files/page"])?;

    assert_eq!((page.as_str(), page_v6.as_str()), ("a page\n", "a page\n"));
    assert_eq!(web[0].requests()?.len(), 2);
    Ok(())
}

#[test]
fn the_capture_finds_a_wrong_checksum() -> Result<()> {
    let lab = Lab::build(&Topology::new("itself", Shape::TwoNics).backends(1))?;
    let _echo = echo::udp_echo(&lab.backends[0].namespace, "10.0.0.11:5353".parse()?, "web-1")?;
    // Sends packets with the unfinished checksum that a NIC would complete.
    lab.switch.run(&["ethtool", "-K", "web-1", "tx-checksum-ip-generic", "on"])?;
    let capture = lab.capture()?;

    lab.xlb.run(&["bash", "-c", "echo hello > /dev/udp/10.0.0.11/5353"])?;
    let seen = capture.finish()?;

    assert!(!seen.wrong.is_empty(), "{seen:?}");
    assert_eq!(seen.silent, [lab.client.to_string()]);
    Ok(())
}

#[test]
fn a_router_reports_a_narrow_path_to_the_sender() -> Result<()> {
    let lab = Lab::build(&Topology::new("narrow", Shape::Routers).backends(1))?;
    let _web = lab.web_servers()?;
    nftables::balance(&lab)?;
    fs::write(lab.directory().join("files/page"), vec![b'x'; 1_000_000])?;
    let edge = lab.edge.as_ref().context("there is no edge router")?;
    link::narrow((edge, "eth0"), lab.clients[0], 1400)?;

    for (family, host) in [(Family::V4, "192.0.2.10"), (Family::V6, "[2001:db8::10]")] {
        let url = format!("http://{host}/files/page");
        let page = lab.client.run(&["curl", "-sS", "-m", "10", &url])?;

        assert_eq!(page.len(), 1_000_000, "{family:?}");
        let peer = address::SOURCE.of(family).to_string();
        let route = lab.backends[0].namespace.run(&["ip", "route", "get", &peer])?;
        assert!(route.contains("mtu 1400"), "{family:?}: {route}");
    }
    Ok(())
}

#[test]
fn live_connections_echo_every_byte() -> Result<()> {
    let lab = Lab::build(&Topology::new("itself", Shape::Routers).mode(Mode::Nat).backends(1))?;
    let backend = &lab.backends[0];
    let echoes = backend.address.port(Family::V4, 7);
    echo::process(Path::new(env!("CARGO_BIN_EXE_lab")), Protocol::Tcp, backend, echoes)?;

    let from: Vec<_> = lab.clients.iter().map(|client| client.of(Family::V4)).collect();
    let live = Live::open(&lab.client, &from, echoes, 200)?;
    live.wait_for_bytes(2)?;
    let report = live.finish_unbroken()?;

    assert!(report.echoed >= 400, "{report}");
    Ok(())
}

#[test]
fn no_connection_is_silent_behind_others_that_echo() -> Result<()> {
    let lab = Lab::build(&Topology::new("itself", Shape::Routers).mode(Mode::Nat).backends(1).clients(2))?;
    let backend = &lab.backends[0];
    let echoes = backend.address.port(Family::V4, 7);
    echo::process(Path::new(env!("CARGO_BIN_EXE_lab")), Protocol::Tcp, backend, echoes)?;
    let from: Vec<_> = lab.clients.iter().map(|client| client.of(Family::V4)).collect();
    let live = Live::open(&lab.client, &from, echoes, 4)?;

    backend.namespace.ip(&format!("route add blackhole {}/32", from[1]))?;

    let error = live.wait_for_bytes(1).unwrap_err();
    assert!(format!("{error:#}").starts_with("only on 2: "), "{error:#}");
    live.wait_for_bytes_on(2, 1)
}

#[test]
fn live_connections_report_a_missing_echo_server() -> Result<()> {
    let lab = Lab::build(&Topology::new("itself", Shape::TwoNics).backends(1))?;
    let unused = address::SERVICE.port(Family::V4, web::PORT);

    let refused = Live::open(&lab.client, &[lab.clients[0].of(Family::V4)], unused, 1);

    assert!(format!("{:#}", refused.err().expect("nothing listens")).contains("refused"));
    Ok(())
}

#[test]
fn a_silent_host_does_not_answer_until_it_listens_again() -> Result<()> {
    let lab = Lab::build(&Topology::new("silent", Shape::TwoNics).backends(1))?;
    let _web = lab.web_servers()?;
    let host = &lab.backends[0].namespace;
    let curl = ["curl", "-sS", "-m", "0.5", "http://10.0.0.11:8080/"];

    host.silence()?;
    let silent = lab.xlb.output(&curl)?;
    host.listen_again()?;
    let answer = lab.xlb.run(&curl)?;

    const TIMED_OUT: i32 = 28;
    assert_eq!((silent.code, answer.as_str()), (TIMED_OUT, "web-1\n"));
    Ok(())
}

#[test]
fn nothing_is_left_behind() -> Result<()> {
    let lab = Lab::build(&Topology::new("behind", Shape::TwoNics))?;
    let web = lab.web_servers()?;
    let name = lab.name().to_owned();

    drop(lab);

    assert!(!sweep::directory(&name).exists());
    assert!(!Path::new("/run/netns").join(format!("{name}-client")).exists());
    drop(web);
    Ok(())
}

/// The demo checks itself and ends with an error if something is wrong; these are its figures.
#[test]
fn the_demo_keeps_its_promises_within_a_minute() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(60);
    let _alone = alone();
    let start = Instant::now();

    let mut demo = Command::new(env!("CARGO_BIN_EXE_lab"));
    demo.args(["demo", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let demo = demo.spawn()?;
    let lab = format!("xlb-demo-{}", demo.id());
    let ended = demo.wait_with_output()?;
    let took = start.elapsed();

    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(took <= LIMIT, "{took:?}");
    let figures: Value = serde_json::from_slice(&ended.stdout)?;
    let shares = json!({ "web-1": 100, "web-2": 100, "web-3": 100 });
    assert_eq!(figures["requests"], json!({ "ipv4": shares, "ipv6": shares }));
    assert!(figures["server_killed"]["failed"].is_u64(), "{figures}");
    assert_eq!(figures["server_back"]["requests"], shares);
    assert_eq!(figures["daemon_killed"]["requests"], shares);
    let said = figures["udp"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let said: BTreeSet<_> = said.filter_map(|answer| answer.split_once(": datagram ")).collect();
    let (who, what): (BTreeSet<_>, BTreeSet<_>) = said.into_iter().unzip();
    assert_eq!(who, BTreeSet::from(["web-1", "web-2", "web-3"]), "{figures}");
    assert_eq!(what, BTreeSet::from(["1", "2", "3"]), "{figures}");
    assert!(is_gone(&lab)?);
    Ok(())
}

/// Like Ctrl-C: a signal to all processes of the terminal at once, at any moment.
#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() -> Result<()> {
    let _alone = alone();
    for moment in ["A network of its own", "The daemon loads", "Requests, each", "A server is killed"] {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg("demo")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let group = Pid::from_raw(demo.id().cast_signed());
        let mut story = BufReader::new(demo.stdout.take().context("the demo has no output")?).lines();
        let has_come = story.by_ref().any(|line| line.is_ok_and(|line| line.contains(moment)));

        killpg(group, Signal::SIGINT)?;
        story.for_each(drop);
        let ended = demo.wait_with_output()?;

        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(has_come, "{moment}: {said}");
        assert_eq!(ended.status.code(), Some(130), "{moment}: {said}");
        let lab = format!("xlb-demo-{group}");
        assert!(is_gone(&lab)?, "{moment}: {said}");
    }
    Ok(())
}

/// Neither a file nor a namespace of the lab is left.
fn is_gone(lab: &str) -> Result<bool> {
    Ok(!sweep::directory(lab).exists() && namespace::beginning_with(&format!("{lab}-"))?.is_empty())
}
