//! Checks of Redis servers by type `redis`: what they show, and that the servers do not notice them.

use std::{mem, time::Duration};

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Family, Lab, Redis, Shape, Topology,
    certificate::{self, NAME},
    config::{Check, Service},
    eventually,
    redis::{PORT, USERS},
    wait::SOON,
};

const POOR: &str = "user poor on >secret resetkeys resetchannels -@all +ping";
const PROBES: usize = 20;

#[test]
fn the_roles_of_servers_are_shown_and_the_servers_notice_nothing() -> Result<()> {
    let lab = Lab::build(&Topology::new("redis", Shape::TwoNics).backends(2))?;
    let mut primary = Redis::start(&lab, 1, USERS)?;
    let host = primary.backend.address.of(Family::V4);
    let replica = Redis::start(&lab, 2, &format!("{USERS}\nreplicaof {host} {PORT}"))?;
    let xlb = lab.start(&config(&lab, &format!("user = 'xlb'\n{}", lab.password_file("secret")?)))?;
    xlb.wait_until_all_are_up()?;
    eventually(SOON, "the replica has its data", || Ok(xlb.probe("cache/web-2")?.1.contains("0s behind")))?;
    let settled = logs_after_transfer(&primary, &replica)?;

    for _ in 0..PROBES {
        for (backend, role) in
            [("web-1", "primary, replication "), ("web-2", "replica, 0s behind, replication ")]
        {
            let (result, told) = xlb.probe(&format!("cache/{backend}"))?;
            assert!(result == "success" && told.starts_with(role), "{result}: {told}");
        }
    }
    for (server, settled) in [&primary, &replica].into_iter().zip(settled) {
        // Those of the probes are about to end.
        eventually(SOON, "one connection is kept", || {
            Ok(server.ask(&["CLIENT", "LIST"])?.matches("user=xlb").count() == 1)
        })?;
        assert_eq!(server.ask(&["ACL", "LOG"])?, "", "no login has failed");
        assert_eq!(&server.log()?[settled.len()..], "");
    }

    primary.kill()?;
    assert_eq!(xlb.probe("cache/web-1")?, ("failure".to_owned(), "connection refused".to_owned()));
    eventually(SOON, "the replica misses its primary", || {
        Ok(xlb.probe("cache/web-2")?.1.starts_with("replica, receives nothing"))
    })?;
    replica.ask(&["REPLICAOF", "NO", "ONE"])?;
    assert!(
        xlb.probe("cache/web-2")?.1.starts_with("primary, replication "),
        "{}",
        xlb.probe("cache/web-2")?.1
    );
    Ok(())
}

#[test]
fn a_check_that_the_server_refuses_decides_nothing() -> Result<()> {
    let lab = Lab::build(&Topology::new("redis", Shape::TwoNics).backends(1))?;
    let server = Redis::start(&lab, 1, &format!("{USERS}\n{POOR}"))?;
    let password = lab.password_file("secret")?;
    let xlb = lab.start(&config(&lab, &format!("user = 'xlb'\n{password}")))?;
    xlb.wait_until_all_are_up()?;
    server.ask(&["ACL", "SETUSER", "default", "resetpass", ">other"])?;

    for (keys, words) in [
        (String::new(), "set `password_file`"),
        (password.clone(), "WRONGPASS"),
        (format!("user = 'other'\n{password}"), "WRONGPASS"),
        (format!("user = 'poor'\n{password}"), "NOPERM"),
    ] {
        xlb.write(&config(&lab, &keys))?;
        xlb.run(&["reload"])?;

        let (result, detail) = xlb.probe("cache/web-1")?;

        assert!(result == "undecided" && detail.contains(words), "{keys}: {result}, {detail}");
        assert_eq!(xlb.health("cache", "web-1")?, "up", "{keys}");
    }
    Ok(())
}

#[test]
fn a_server_is_checked_over_tls() -> Result<()> {
    let lab = Lab::build(&Topology::new("redis", Shape::TwoNics).backends(1))?;
    let file = |name: &str| lab.directory().join(name);
    certificate::make(&file("cert.pem"), &file("key.pem"))?;
    let lines = format!(
        "tls-port {PORT}\ntls-cert-file {}\ntls-key-file {}\ntls-auth-clients no",
        file("cert.pem").display(),
        file("key.pem").display()
    );
    let _server = Redis::start(&lab, 1, &format!("{USERS}\nport 0\n{lines}"))?;
    let verify = format!("tls = 'verify'\nserver_name = '{NAME}'\nca = '{}'", file("cert.pem").display());
    let xlb =
        lab.start(&config(&lab, &format!("user = 'xlb'\n{}\n{verify}", lab.password_file("secret")?)))?;

    xlb.wait_until_all_are_up()?;

    assert!(
        xlb.probe("cache/web-1")?.1.starts_with("primary, replication "),
        "{}",
        xlb.probe("cache/web-1")?.1
    );
    Ok(())
}

/// What both servers have logged when the transfer has ended for both. The replica tells the primary.
fn logs_after_transfer(primary: &Redis, replica: &Redis) -> Result<[String; 2]> {
    let mut logs = <[String; 2]>::default();
    eventually(SOON, "the transfer has ended for both", || {
        let before = mem::replace(&mut logs, [primary.log()?, replica.log()?]);
        Ok(primary.ask(&["INFO", "replication"])?.contains("state=online") && logs == before)
    })?;
    Ok(logs)
}

/// The service `cache`, checked with these keys.
fn config(lab: &Lab, keys: &str) -> Config {
    let mut service = Service::over(lab, "cache", Protocol::Tcp, Mode::FullNat, PORT, PORT).only(Family::V4);
    service.health.check = Check::Written(format!("type = \"redis\"\n{keys}"));
    (service.health.interval, service.health.timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    (service.health.rise, service.health.fall) = (1, 1);
    Config::new(lab).service(service)
}
