//! What the operator is told of database servers that do not serve.

use super::{
    roles::{cluster, primary, promote, replica, say, say_nothing},
    *,
};
use crate::{metrics::render, probe::RoleReport};

#[test]
fn each_reason_has_words_of_its_own() {
    let mut world = cluster();
    promote(&mut world, "pg-2", 2);
    let reason = |world: &mut World, service: usize, server: usize| {
        let roles = world.ask(Request::Roles).unwrap();
        roles[service].servers[server].reason.clone().unwrap_or_default()
    };
    let reads = |world: &mut World, report: RoleReport| {
        (0..3).for_each(|_| say(world, "db-read/pg-3", report.clone()));
        reason(world, 1, 2)
    };

    let behind = RoleReport { lag: Some(Duration::from_secs(6)), ..replica(2) };
    assert_eq!(reads(&mut world, behind), "too far behind");
    assert_eq!(reads(&mut world, replica(1)), "of another history");
    let alone = RoleReport { is_following: false, lag: None, ..replica(2) };
    assert_eq!(reads(&mut world, alone), "follows no primary");
    say(&mut world, "db-read/pg-3", replica(2));
    assert_eq!(reason(&mut world, 1, 2), "not often enough in a row yet");

    say(&mut world, "db-read/pg-1", primary(1));
    assert_eq!(reason(&mut world, 1, 0), "outdated");
    promote(&mut world, "pg-3", 2);
    assert_eq!(reason(&mut world, 0, 2), "not the only one");
}

#[test]
fn a_replica_that_begins_or_ceases_to_serve_reads_is_logged_with_the_reason() {
    let mut world = cluster();
    logging::capture();
    logging::captured();
    let behind = RoleReport { lag: Some(Duration::from_millis(5_001)), ..replica(1) };

    (0..3).for_each(|_| say(&mut world, "db-read/pg-3", behind.clone()));
    (0..2).for_each(|_| say(&mut world, "db-read/pg-3", replica(1)));

    assert_eq!(
        logging::captured(),
        [
            "backend serves no reads backend=db-read/pg-3 role=replica why=too far behind lag_ms=5001",
            "backend serves reads backend=db-read/pg-3 role=replica",
        ]
    );
}

#[test]
fn a_server_that_says_primary_and_replica_in_turn_is_said_to_do_so_and_gets_nothing() {
    let mut world = cluster();
    logging::capture();
    logging::captured();
    say(&mut world, "db/pg-1", replica(1));

    for _ in 0..3 {
        say(&mut world, "db/pg-2", primary(2));
        say(&mut world, "db/pg-2", replica(1));
    }

    assert!(world.serving().is_empty());
    let lines = logging::captured();
    let said = lines.iter().filter(|line| line.starts_with("no primary: new flows are refused")).count();
    assert_eq!(said, 1, "{lines:?}");
    let servers = &world.ask(Request::Roles).unwrap()[0].servers;
    assert_eq!(servers[1].reason.as_deref(), Some("says primary and replica in turn"));
    let health = world.ask(Request::Health).unwrap();
    let detail =
        |name: &str| &health.iter().find(|it| it.name == name).unwrap().last.as_ref().unwrap().detail;
    assert!(detail("pg-2").ends_with("; it says primary and replica in turn"), "{}", detail("pg-2"));
    assert!(!detail("pg-1").contains("in turn"), "{}", detail("pg-1"));
}

#[test]
fn the_lag_of_a_replica_that_receives_nothing_grows_wherever_it_is_shown() {
    let mut world = cluster();
    say(&mut world, "db-read/pg-3", RoleReport { is_following: false, lag: None, ..replica(1) });

    world.wait(9_000);

    let backends = world.ask(|reply| Request::Backends { service: Some("db-read".into()), reply }).unwrap();
    assert_eq!(backends[2].lag_ms, Some(9_000));
    assert_eq!(world.ask(Request::Roles).unwrap()[1].servers[2].lag_ms, Some(9_000));
    let metrics = render(&world.ask(Request::Metrics).unwrap()).unwrap();
    assert!(
        metrics.contains("xlb_backend_lag_seconds{service=\"db-read\",backend=\"pg-3\"} 9\n"),
        "{metrics}"
    );
}

#[test]
fn checks_that_decide_nothing_are_a_warning_until_one_decides() {
    let mut world = cluster();
    let about = |world: &mut World| {
        let warnings = world.status().warnings;
        warnings.into_iter().find(|it| it.starts_with("backend db/pg-1: its check decides nothing"))
    };
    say_nothing(&mut world, "db/pg-1");
    say_nothing(&mut world, "db/pg-1");
    assert_eq!(about(&mut world), None, "`fall` of them in a row");

    say_nothing(&mut world, "db/pg-1");
    assert!(about(&mut world).is_some());
    assert_eq!(world.serving(), ["pg-1"]);

    say(&mut world, "db/pg-1", primary(1));
    assert_eq!(about(&mut world), None);
}
