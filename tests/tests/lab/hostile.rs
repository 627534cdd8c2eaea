//! Hostile and sick servers: what `xlb health list` says of them, and what they cost the daemon.

use std::{collections::BTreeSet, net::TcpStream, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};
use serde_json::json;
use tests::lab::{
    Config, Daemon, Family, Lab, Redis, Shape, Topology, Web, address,
    certificate::NAME,
    config::{Check, Service},
    eventually,
    hostile::{self, Answer},
    pass,
    process::peak_memory_of,
    redis::{self, USERS},
    sweep,
    wait::SOON,
    web::Encryption,
};

const TIMEOUT: &str = "no answer within 1s";
/// For many checks.
const LONG: Duration = Duration::from_secs(30);
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

/// Alone, it would be the only server for writes. Beside a primary, it must not disturb it.
#[test]
fn a_server_that_says_primary_and_replica_in_turn_is_never_elected_and_gets_no_flows() -> Result<()> {
    const ANSWERS: usize = 40;
    let lab = Lab::build(&Topology::new("twofaced", Shape::TwoNics).backends(2))?;
    pass::pass_everything((&lab.client, "eth0"), &lab.directory().join(sweep::BPFFS))?;
    let _primary = Redis::start(&lab, 1, USERS)?;
    let two_faced = &lab.backends[1];
    let (_server, answers) =
        hostile::two_faced_redis(&two_faced.namespace, two_faced.address.port(Family::V4, redis::PORT))?;
    let alone = |role| {
        let mut service = of_redis(&lab, &format!("{role}-alone"), redis::PORT + 1, role);
        service.backends.retain(|it| it.name == "web-2");
        service
    };
    let mut reads = alone("replica");
    reads.listen = vec![address::SERVICE.port(Family::V4, redis::PORT + 2)];
    let both = of_redis(&lab, "both", redis::PORT, "primary");
    let xlb = lab.start(&Config::new(&lab).service(both).service(alone("primary")).service(reads))?;
    eventually(SOON, "the true primary serves", || Ok(connects(&lab, redis::PORT)))?;

    let mut said = BTreeSet::new();
    eventually(LONG, "it has answered often", || {
        let list = xlb.json(&["role", "list"])?;
        let primaries = list.as_array().into_iter().flatten().map(|it| (&it["service"], &it["primary"]));
        for (service, primary) in primaries.filter(|(service, _)| *service != "replica-alone") {
            assert_eq!(*primary, if service == "both" { json!("web-1") } else { json!(null) }, "{service}");
        }
        assert!(connects(&lab, redis::PORT));
        assert!(!connects(&lab, redis::PORT + 1));
        connects(&lab, redis::PORT + 2);
        said.insert(detail(&xlb, "primary-alone")?);
        Ok(answers.load(Ordering::Relaxed) >= ANSWERS)
    })?;

    let flows = xlb.metrics()?;
    let to = |service, backend| {
        flows.sum("xlb_backend_new_flows_total", &[("service", service), ("backend", backend)])
    };
    assert!(to("both", "web-1") > 0.0);
    let of_two_faced = ["both", "primary-alone", "replica-alone"].map(|service| to(service, "web-2"));
    assert_eq!(of_two_faced, [0.0; 3]);
    println!("{said:?}\n{}", xlb.run(&["role", "list"])?);
    for role in ["primary", "replica"] {
        assert!(said.iter().any(|it| it.contains(role)), "`xlb health list` never says {role}: {said:?}");
    }
    Ok(())
}

/// Does a new connection to this port of the service succeed?
fn connects(lab: &Lab, port: u16) -> bool {
    let to = address::SERVICE.port(Family::V4, port);
    lab.client.inside(|| Ok(TcpStream::connect_timeout(&to, SOON)?)).is_ok()
}

/// A service over Redis on all servers, or those that say this role.
fn of_redis(lab: &Lab, name: &str, port: u16, role: &str) -> Service {
    let mut service =
        Service::over(lab, name, Protocol::Tcp, Mode::FullNat, port, redis::PORT).only(Family::V4);
    service.keys = vec![if role == "primary" { "role = 'primary'" } else { "role = 'replica'" }];
    service.health.check = Check::Written("type = 'redis'".to_owned());
    service
}

/// What `xlb health list` says of web-2.
fn detail(xlb: &Daemon, service: &str) -> Result<String> {
    let list = xlb.json(&["health", "list"])?;
    let mut rows = list.as_array().into_iter().flatten();
    let row = rows.find(|it| it["service"] == service && it["name"] == "web-2");
    Ok(row.and_then(|it| it["last"]["detail"].as_str()).unwrap_or_default().to_owned())
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
