//! Types of checks against the programs that they are made for: up with a right server, and down with a clear word if it is
//! stopped, frozen, or answers otherwise.
//!
//! The checks of databases and of http have files of their own.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};
use nix::sys::signal::{Signal, kill};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, Web,
    config::{Check, Service},
    eventually,
    process::Program,
};

/// Where servers listen, and services, too.
const PORT: u16 = 7000;
/// Where a second service over the same server listens.
const SECOND: u16 = 7001;
/// A busy machine may take this long to start a server and to check it.
const CHANGED: Duration = Duration::from_secs(20);
const REFUSED: (&str, &str) = ("failure", "connection refused");

#[test]
fn a_name_server_is_up_while_it_has_the_right_record() -> Result<()> {
    let lab = build("dns")?;
    let query = "type = 'dns'\nquery_name = 'www.example.org'\nexpect_answer = '192.0.2.80'";
    let over_udp = service(&lab, "udp", Protocol::Udp, PORT, query);
    let over_tcp = service(&lab, "tcp", Protocol::Tcp, PORT, &format!("{query}\nover = 'tcp'"));
    let mut server = name_server(&lab, &["--address=/www.example.org/192.0.2.80"])?;
    let xlb = lab.start(&Config::new(&lab).service(over_udp).service(over_tcp))?;

    for service in ["udp", "tcp"] {
        is_up(&xlb, service, "NOERROR, 1 record")?;
    }
    server.kill()?;
    for service in ["udp", "tcp"] {
        is_down(&xlb, service, REFUSED)?;
    }
    server = name_server(&lab, &["--address=/www.example.org/192.0.2.81"])?;
    for service in ["udp", "tcp"] {
        is_down(&xlb, service, ("failure", "NOERROR, 1 record, none is `192.0.2.80`"))?;
    }
    server.kill()?;
    let _server = name_server(&lab, &[])?;
    for service in ["udp", "tcp"] {
        is_down(&xlb, service, ("failure", "REFUSED"))?;
    }
    Ok(())
}

/// The datagram is a query for `www.example.org`, and the beginning of the answer its id and flags.
#[test]
fn a_server_of_datagrams_is_up_while_it_answers_with_the_right_beginning() -> Result<()> {
    let lab = build("udp")?;
    let check = "type = 'udp'\n\
                 send = 'hex:abcd 0100 0001 0000 0000 0000 03777777 076578616d706c65 036f7267 00 0001 0001'\n\
                 expect_reply = 'hex:abcd 8580 0001 0001'";
    let mut server = name_server(&lab, &["--address=/www.example.org/192.0.2.80"])?;
    let service = service(&lab, "udp", Protocol::Udp, PORT, check);
    let xlb = lab.start(&Config::new(&lab).service(service))?;

    is_up(&xlb, "udp", "answered `hex:abcd858000010001")?;
    kill(server.pid()?, Signal::SIGSTOP)?;
    is_down(&xlb, "udp", ("timeout", "no answer within 1s"))?;
    kill(server.pid()?, Signal::SIGCONT)?;
    is_up(&xlb, "udp", "answered")?;
    server.kill()?;
    is_down(&xlb, "udp", REFUSED)?;
    let _server = name_server(&lab, &[])?;
    is_down(&xlb, "udp", ("failure", "unexpected answer: `hex:abcd8"))
}

/// etcd has the health service of gRPC, for the server as a whole.
#[test]
fn a_grpc_server_is_up_while_it_is_serving() -> Result<()> {
    let lab = build("grpc")?;
    let mut server = etcd(&lab)?;
    let whole = service(&lab, "whole", Protocol::Tcp, PORT, "type = 'grpc'");
    let part = service(&lab, "part", Protocol::Tcp, SECOND, "type = 'grpc'\nservice = 'example.v1.Orders'");
    let xlb = lab.start(&Config::new(&lab).service(whole).service(part))?;

    is_up(&xlb, "whole", "SERVING")?;
    is_down(&xlb, "part", ("failure", "NOT_FOUND: `unknown service`"))?;
    kill(server.pid()?, Signal::SIGSTOP)?;
    is_down(&xlb, "whole", ("timeout", "no answer within 1s"))?;
    kill(server.pid()?, Signal::SIGCONT)?;
    is_up(&xlb, "whole", "SERVING")?;
    server.kill()?;
    is_down(&xlb, "whole", REFUSED)?;
    let _web = web(&lab)?;
    is_down(&xlb, "whole", ("failure", "not HTTP/2"))
}

#[test]
fn an_agent_decides_by_its_line() -> Result<()> {
    let lab = build("agent")?;
    let line = lab.directory().join("line");
    fs::write(&line, "up 50%\n")?;
    let listen = format!("TCP4-LISTEN:{PORT},reuseaddr,fork");
    let answer = format!("SYSTEM:cat {}", line.display());
    let mut server = launch(&lab, "socat", &[&listen, &answer])?;
    let xlb =
        lab.start(&Config::new(&lab).service(service(&lab, "agent", Protocol::Tcp, PORT, "type = 'agent'")))?;

    is_up(&xlb, "agent", "up 50%")?;
    wait_for_weight(&xlb, 50)?;
    fs::write(&line, "down # disk full\n")?;
    is_down(&xlb, "agent", ("failure", "down # disk full"))?;
    fs::write(&line, "up 100%\n")?;
    is_up(&xlb, "agent", "up 100%")?;
    wait_for_weight(&xlb, 100)?;
    fs::write(&line, "220 mail.example.org ESMTP\n")?;
    is_down(&xlb, "agent", ("failure", "not an agent's line: `220 mail.example.org ESMTP`"))?;
    server.kill()?;
    is_down(&xlb, "agent", REFUSED)
}

/// The script asks the server by curl.
#[test]
fn a_program_decides_by_its_exit_code() -> Result<()> {
    let lab = build("exec")?;
    let mut server = web(&lab)?;
    let (script, full) = (lab.directory().join("check"), lab.directory().join("full"));
    let words = format!(
        "if [ -e {} ]; then echo \"disk of $XLB_BACKEND is full\"; exit 3; fi\n\
         exec curl -fsS -m 1 http://$XLB_ADDRESS:$XLB_PORT/\n",
        full.display()
    );
    fs::write(&script, words)?;
    let check = format!("type = 'exec'\ncommand = ['/bin/sh', '{}']", script.display());
    let service = service(&lab, "exec", Protocol::Tcp, PORT, &check);
    let xlb = lab.start(&Config::new(&lab).service(service).allow_programs())?;

    is_up(&xlb, "exec", "exit code 0: web-1")?;
    fs::write(&full, "")?;
    is_down(&xlb, "exec", ("failure", "exit code 3: disk of web-1 is full"))?;
    fs::remove_file(&full)?;
    is_up(&xlb, "exec", "exit code 0")?;
    server.kill()?;
    is_down(&xlb, "exec", ("failure", "exit code 7: curl: (7) Failed to connect"))
}

fn build(tag: &'static str) -> Result<Lab> {
    Lab::build(&Topology::new(tag, Shape::TwoNics).backends(1))
}

/// A service at this port over the server, with this check.
fn service(lab: &Lab, name: &str, protocol: Protocol, port: u16, check: &str) -> Service {
    let mut service = Service::over(lab, name, protocol, Mode::FullNat, port, PORT).only(Family::V4);
    service.health.check = Check::Written(check.to_owned());
    (service.health.interval, service.health.timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    (service.health.rise, service.health.fall) = (1, 1);
    service
}

/// Starts a program on the server. The test's first check waits until it serves.
fn launch(lab: &Lab, program: &str, words: &[&str]) -> Result<Program> {
    let mut command: Command = lab.backends[0].namespace.command(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = command.spawn();
    Ok(started.with_context(|| format!("start {program}; `cargo xtask setup` installs it"))?.into())
}

/// A name server that knows only what these options say.
fn name_server(lab: &Lab, options: &[&str]) -> Result<Program> {
    let (port, address) = (format!("--port={PORT}"), format!("--listen-address={}", host(lab)));
    let common = [
        "--conf-file=/dev/null",
        "--keep-in-foreground",
        "--log-facility=-",
        "--pid-file",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        &port,
        &address,
    ];
    launch(lab, "dnsmasq", &[&common, options].concat())
}

fn etcd(lab: &Lab) -> Result<Program> {
    let data = format!("--data-dir={}", lab.directory().join("etcd").display());
    let url = format!("http://{}:{PORT}", host(lab));
    launch(
        lab,
        "etcd",
        &[&data, "--listen-client-urls", &url, "--advertise-client-urls", &url, "--log-outputs", "stderr"],
    )
}

fn web(lab: &Lab) -> Result<Web> {
    Web::start(&lab.backends[0], PORT..=PORT, None, lab.directory())
}

fn host(lab: &Lab) -> String {
    lab.backends[0].address.of(Family::V4).to_string()
}

/// The server becomes up, and its checks say this.
fn is_up(xlb: &Daemon, service: &str, words: &str) -> Result<()> {
    is(xlb, service, "up", ("success", words))
}

/// The server becomes or stays down, and its checks have this result and say this.
fn is_down(xlb: &Daemon, service: &str, said: (&str, &str)) -> Result<()> {
    is(xlb, service, "down", said)
}

fn is(xlb: &Daemon, service: &str, health: &str, (result, words): (&str, &str)) -> Result<()> {
    let mut seen = String::new();
    eventually(CHANGED, &format!("{service} is {health}, {result}: {words}"), || {
        let last = last(xlb, service)?;
        let detail = last["detail"].as_str().unwrap_or_default();
        seen = format!("{}, {}: {detail}", xlb.health(service, "web-1")?, last["result"]);
        Ok(seen.starts_with(health) && last["result"] == result && detail.starts_with(words))
    })
    .map(drop)
    .with_context(|| seen)
}

/// The last check, as `xlb health list` shows it.
fn last(xlb: &Daemon, service: &str) -> Result<serde_json::Value> {
    let list = xlb.json(&["health", "list"])?;
    let found = list.as_array().into_iter().flatten().find(|it| it["service"] == service);
    Ok(found.with_context(|| format!("`xlb health list` has no {service}"))?["last"].clone())
}

/// The data plane follows the health shortly after.
fn wait_for_weight(xlb: &Daemon, weight: u64) -> Result<()> {
    eventually(CHANGED, &format!("the effective weight is {weight}"), || {
        Ok(xlb.json(&["backend", "list", "agent"])?[0]["effective_weight"] == weight)
    })
    .map(drop)
}
