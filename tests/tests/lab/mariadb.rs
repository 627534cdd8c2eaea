//! Checks of database servers by type `mysql`: what they show, and that the servers do not notice them.

use std::{path::Path, time::Duration};

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Family, Lab, MariaDb, Shape, Topology,
    certificate::NAME,
    config::{Check, Service},
    eventually,
    mariadb::PORT,
    wait::SOON,
};

const PROBES: usize = 20;

#[test]
fn the_roles_of_servers_are_shown_and_the_servers_notice_nothing() -> Result<()> {
    let lab = Lab::build(&Topology::new("mariadb", Shape::TwoNics).backends(2))?;
    let servers = primary_and_replica(&lab)?;
    let [primary, replica] = &servers;
    let settled = [primary.error_log()?.len(), replica.error_log()?.len()];
    let password = lab.password_file("secret")?;
    let mut xlb = lab.start(&config(&lab, &password))?;
    xlb.wait_until_all_are_up()?;

    let gtid = primary.sql("SELECT @@gtid_current_pos")?;
    let ca = primary.certificate();
    for tls in ["tls = 'off'", "tls = 'require'", &verify(&ca)] {
        xlb.write(&config(&lab, &format!("{password}\n{tls}")))?;
        xlb.run(&["reload"])?;
        xlb.wait_until_all_are_up()?;
        for _ in 0..PROBES {
            for (backend, role) in [("web-1", "primary, server 1"), ("web-2", "replica, 0s behind, server 2")]
            {
                let told = xlb.probe(&format!("db/{backend}"))?;
                assert_eq!(told, ("success".to_owned(), format!("{role}, GTID {gtid}")), "{tls}");
            }
        }
    }
    xlb.stop()?;

    for (server, settled) in servers.iter().zip(settled) {
        let has_left = || Ok(server.sql(&connections_of("xlb"))? == "0");
        eventually(SOON, "xlb has left", has_left)?;
        assert_eq!(server.status("Aborted_connects")?, "0", "{}", server.error_log()?);
        assert_eq!(server.status("Aborted_clients")?, "0", "{}", server.error_log()?);
        let log = server.error_log()?;
        assert!(!log[settled..].contains("[Warning]") && !log[settled..].contains("[ERROR]"), "{log}");
    }
    Ok(())
}

#[test]
fn a_promoted_replica_is_a_primary_and_a_killed_server_refuses() -> Result<()> {
    let lab = Lab::build(&Topology::new("promotion", Shape::TwoNics).backends(2))?;
    let [mut primary, replica] = primary_and_replica(&lab)?;
    let xlb = lab.start(&config(&lab, &lab.password_file("secret")?))?;
    xlb.wait_until_all_are_up()?;

    replica.sql("STOP SLAVE")?;
    assert!(
        xlb.probe("db/web-2")?.1.starts_with("replica, receives nothing"),
        "{}",
        xlb.probe("db/web-2")?.1
    );
    replica.sql("RESET SLAVE ALL; SET GLOBAL read_only = 0")?;
    assert!(xlb.probe("db/web-2")?.1.starts_with("primary, server 2"), "{}", xlb.probe("db/web-2")?.1);

    primary.kill()?;
    assert_eq!(xlb.probe("db/web-1")?, ("failure".to_owned(), "connection refused".to_owned()));
    primary.start_again()?;
    eventually(SOON, "web-1 is up", || Ok(xlb.health("db", "web-1")? == "up"))?;
    Ok(())
}

#[test]
fn a_wrong_login_or_certificate_does_not_lock_the_host_out() -> Result<()> {
    const ERRORS: &str = "--max-connect-errors=3";
    let lab = Lab::build(&Topology::new("locked", Shape::TwoNics).backends(1))?;
    let server = MariaDb::start(&lab, 1, &[ERRORS, "--plugin-load-add=auth_ed25519"])?;
    server.sql(
        "CREATE USER xlb IDENTIFIED BY 'secret'; GRANT REPLICA MONITOR ON *.* TO xlb;
         CREATE USER poor IDENTIFIED BY 'secret';
         CREATE USER modern IDENTIFIED VIA ed25519 USING PASSWORD('secret')",
    )?;
    let password = lab.password_file("secret")?;
    let xlb = lab.start(&config(&lab, &password))?;
    xlb.wait_until_all_are_up()?;

    let (untrusted, ca) = (format!("tls = 'verify'\nserver_name = '{NAME}'"), server.certificate());
    let other_name = verify(&ca).replace(NAME, "other.example.org");
    for (keys, outcome, words) in [
        (untrusted.as_str(), "failure", "set `ca`"),
        (&other_name, "failure", "set `server_name`"),
        ("user = 'other'", "undecided", "Access denied"),
        ("user = 'poor'", "undecided", "GRANT REPLICA MONITOR ON *.*"),
        ("user = 'modern'", "undecided", "`client_ed25519`"),
    ] {
        xlb.write(&config(&lab, &format!("{password}\n{keys}")))?;
        xlb.run(&["reload"])?;

        for _ in 0..PROBES {
            let (result, detail) = xlb.probe("db/web-1")?;
            assert!(result == outcome && detail.contains(words), "{keys}: {result}, {detail}");
        }
    }

    xlb.write(&config(&lab, &password))?;
    xlb.run(&["reload"])?;
    assert!(xlb.probe("db/web-1")?.1.starts_with("primary, server 1"), "{}", xlb.probe("db/web-1")?.1);
    Ok(())
}

/// Two servers. The second one follows the first one, and has what it has.
fn primary_and_replica(lab: &Lab) -> Result<[MariaDb; 2]> {
    let primary = MariaDb::start(lab, 1, &[])?;
    let replica = MariaDb::start(lab, 2, &["--read-only=1"])?;
    primary.sql("CREATE USER xlb IDENTIFIED BY 'secret'; GRANT REPLICA MONITOR ON *.* TO xlb")?;
    replica.follow(&primary)?;
    Ok([primary, replica])
}

/// The service `db`, checked with these keys, with more time than a login takes on a busy machine.
fn config(lab: &Lab, keys: &str) -> Config {
    const AMPLE: Duration = Duration::from_secs(5);
    let mut service = Service::over(lab, "db", Protocol::Tcp, Mode::FullNat, PORT, PORT).only(Family::V4);
    service.health.check = Check::Written(format!("type = \"mysql\"\n{keys}"));
    (service.health.interval, service.health.timeout) = (AMPLE, AMPLE);
    (service.health.rise, service.health.fall) = (1, 1);
    Config::new(lab).service(service)
}

/// The keys of a verified connection.
fn verify(ca: &Path) -> String {
    format!("tls = 'verify'\nserver_name = '{NAME}'\nca = '{}'", ca.display())
}

fn connections_of(user: &str) -> String {
    format!("SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{user}'")
}
