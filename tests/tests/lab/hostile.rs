//! Hostile and sick servers: what `xlb health list` says of them, and what they cost the daemon.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, Web,
    certificate::NAME,
    config::{Check, Service},
    eventually,
    hostile::{self, Answer},
    process::peak_memory_of,
    wait::SOON,
    web::Encryption,
};

const TIMEOUT: &str = "no answer within 1s";
/// Peak of what all checks together may take, beyond the peak at the start.
const MEMORY: u64 = 32 * 1024 * 1024;
const FIRST_PORT: u16 = 7000;

/// The check, what the server answers, and what the list says.
const SERVERS: &[(&str, Answer, &str)] = &[
    (
        "type = 'http'",
        Answer::Endless(b"HTTP/1.1 200 OK\r\n", b"X-More: headers\r\n"),
        "headers longer than 16 KiB or 100 lines",
    ),
    ("type = 'http'", Answer::Dripping(b"HTTP/1.1 200 OK\r\n"), TIMEOUT),
    ("type = 'http'", Answer::Once(b"SSH-2.0-OpenSSH_9.2\r\n"), "not HTTP"),
    ("type = 'https'", Answer::Silence, TIMEOUT),
    ("type = 'https'", Answer::Once(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not TLS"),
    ("type = 'tls'", Answer::Dripping(b"\x16\x03\x03"), TIMEOUT),
    ("type = 'grpc'", Answer::Endless(b"", b"\0\0\0\x04\0\0\0\0\0"), TIMEOUT),
    ("type = 'agent'\nport = 7007", Answer::Endless(b"up", b"x"), "a line longer than 256 bytes"),
    (
        "type = 'dns'\nquery_name = 'example.org'\nover = 'tcp'",
        Answer::Endless(b"\xff\xff", b"x"),
        "not an answer to the query",
    ),
    ("type = 'mysql'", Answer::Endless(b"\xff\xff\xff\0\xff", b"x"), "not MySQL"),
    ("type = 'mysql'", Answer::Dripping(b"\x0a"), TIMEOUT),
    ("type = 'postgres'", Answer::Endless(b"E\x01\0\0\0", b"x"), "answer longer than 64 KiB"),
    ("type = 'postgres'", Answer::Once(b"SSH-2.0-OpenSSH_9.2\r\n"), "not PostgreSQL"),
    ("type = 'redis'", Answer::Endless(b"+", b"x"), "not Redis"),
    ("type = 'redis'", Answer::Once(b"SSH-2.0-OpenSSH_9.2\r\n"), "not Redis"),
];

#[test]
fn servers_that_answer_wrongly_are_down_with_a_clear_word_and_cost_little() -> Result<()> {
    let lab = Lab::build(&Topology::new("hostile", Shape::TwoNics).backends(1))?;
    let backend = &lab.backends[0];
    let start = |(number, (_, answer, _)): (usize, &(&str, Answer, &str))| {
        hostile::start(&backend.namespace, backend.address.port(Family::V4, port(number)), *answer)
    };
    let _servers = SERVERS.iter().enumerate().map(start).collect::<Result<Vec<_>>>()?;
    let mut unchecked = service(&lab, SERVERS.len(), "");
    unchecked.health.check = Check::None;
    let xlb = lab.start(&Config::new(&lab).service(unchecked))?;
    let before = peak_memory_of(xlb.pid()?)?;
    let services = SERVERS.iter().enumerate().map(|(number, (check, ..))| service(&lab, number, check));

    xlb.write(&services.fold(Config::new(&lab), Config::service))?;
    xlb.run(&["reload"])?;

    for (number, (check, answer, words)) in SERVERS.iter().enumerate() {
        let said = last(&xlb, number)?;
        assert_eq!(said, *words, "{check}, {answer:?}");
        eventually(SOON, "it is down", || Ok(xlb.health(&name(number), "web-1")? == "down"))
            .with_context(|| format!("{check}, {answer:?}"))?;
    }
    let more = peak_memory_of(xlb.pid()?)? - before;
    assert!(more < MEMORY, "{more} bytes");
    Ok(())
}

#[test]
fn a_bad_certificate_is_named() -> Result<()> {
    let lab = Lab::build(&Topology::new("certificates", Shape::TwoNics).backends(3))?;
    let (good, expired) = (Encryption::make(lab.directory())?, Encryption::make_expired(lab.directory())?);
    let start = |number: usize, encryption| {
        Web::start(&lab.backends[number], port(number)..=port(number), Some(encryption), lab.directory())
    };
    let _servers = [start(0, &good)?, start(1, &good)?, start(2, &expired)?];
    let check = |name: &str, ca: &Encryption| {
        format!("type = 'https'\nserver_name = '{name}'\nca = '{}'", ca.certificate.display())
    };
    let checks = [
        (format!("type = 'https'\nserver_name = '{NAME}'"), "set `ca`"),
        (check("other.example.org", &good), "set `server_name`"),
        (check(NAME, &expired), "expired"),
    ];
    let services = checks.iter().enumerate().map(|(number, (check, _))| {
        let mut service = service(&lab, number, check);
        service.backends.retain(|it| it.name == format!("web-{}", number + 1));
        service
    });
    let xlb = lab.start(&services.fold(Config::new(&lab), Config::service))?;

    for (number, (check, words)) in checks.iter().enumerate() {
        let said = last(&xlb, number)?;
        assert!(said.contains(words), "{check}: {said}");
    }
    Ok(())
}

/// What `xlb health list` says of the last check of this service's backend, once there was one.
fn last(xlb: &Daemon, number: usize) -> Result<String> {
    let mut said = String::new();
    eventually(SOON, &format!("{} was checked", name(number)), || {
        let list = xlb.json(&["health", "list"])?;
        let rows = list.as_array().into_iter().flatten();
        let last = rows
            .filter(|it| it["service"] == name(number).as_str())
            .find_map(|it| it["last"]["detail"].as_str());
        said = last.unwrap_or_default().to_owned();
        Ok(last.is_some())
    })?;
    Ok(said)
}

fn service(lab: &Lab, number: usize, check: &str) -> Service {
    let port = port(number);
    let mut service =
        Service::over(lab, &name(number), Protocol::Tcp, Mode::FullNat, port, port).only(Family::V4);
    service.health.check = Check::Written(check.to_owned());
    (service.health.interval, service.health.timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    (service.health.rise, service.health.fall) = (1, 1);
    service
}

fn name(number: usize) -> String {
    format!("service-{number}")
}

fn port(number: usize) -> u16 {
    FIRST_PORT + number as u16
}
