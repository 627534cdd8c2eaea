//! Roles: which server of a database cluster gets flows, and what ends them.

use super::*;
use crate::{
    controller::roles::ClusterId,
    datapath::Op,
    probe::{Facts, Mark, Role, RoleReport},
    spec::{OnRoleChange, RolePolicy},
    view::PrimaryState,
};

const SYSTEM: u64 = 7_412_345_678_901_234_567;

#[test]
fn only_the_primary_gets_flows() {
    let world = cluster();

    assert_eq!(world.serving(), ["pg-1"]);
    assert_eq!(offered(&world, "db-read"), ["pg-2", "pg-3"]);
    assert!(world.id("db/pg-2").is_none(), "a replica has no flows of the service for writes");
}

#[test]
fn the_flows_of_the_old_primary_end_before_the_new_one_gets_any() {
    let mut world = cluster();
    let old = world.id("db/pg-1").unwrap();
    world.maps().log.clear();

    promote(&mut world, "pg-2", 2);

    assert_eq!(world.serving(), ["pg-2"]);
    assert!(world.id("db/pg-1").is_none(), "its id is retired, so its flows end");
    let pools_of_new = world.id("db/pg-2").unwrap();
    let log = &world.maps().log;
    let deleted =
        log.iter().position(|op| matches!(op, Op::DeleteBackend(place) if *place == old.0 % (1 << 17)));
    let entered = log.iter().position(|op| matches!(op, Op::PutSlots(_, ids) if ids.contains(&pools_of_new)));
    assert!(deleted.is_some() && deleted < entered, "{deleted:?} {entered:?} {log:?}");
}

#[test]
fn a_server_of_an_older_term_loses_its_flows_with_the_first_answer_of_a_newer_one() {
    let mut world = cluster();

    say(&mut world, "db/pg-2", primary(2));

    assert!(world.serving().is_empty(), "pg-1 is outdated, and pg-2 has not said it often enough");
    assert!(world.id("db/pg-1").is_none());
    say(&mut world, "db/pg-2", primary(2));
    assert_eq!(world.serving(), ["pg-2"]);
}

#[test]
fn a_returning_old_primary_gets_nothing_even_if_it_is_alone_or_the_daemon_was_restarted() {
    let mut world = cluster();
    promote(&mut world, "pg-2", 2);
    down(&mut world, "db/pg-2");

    for _ in 0..10 {
        say(&mut world, "db/pg-1", primary(1));
    }
    assert!(world.serving().is_empty());
    assert_eq!(state(&mut world), PrimaryState::Refused);

    world.restart();
    world.absorb(Event::Hops(hops(world.spec())));
    for server in ["db/pg-2", "db/pg-3"] {
        down(&mut world, server);
    }
    for _ in 0..10 {
        say(&mut world, "db/pg-1", primary(1));
    }
    assert!(world.serving().is_empty(), "the term is remembered");
    assert_eq!(state(&mut world), PrimaryState::Refused);
}

#[test]
fn a_primary_that_says_replica_loses_its_flows_at_once() {
    let mut world = cluster();

    say(&mut world, "db/pg-1", replica(1));

    assert!(world.serving().is_empty());
    assert!(world.id("db/pg-1").is_none());
    assert_eq!(state(&mut world), PrimaryState::NoClaim);
}

#[test]
fn a_primary_that_does_not_answer_loses_its_flows_when_it_is_down() {
    let mut world = cluster();

    say_nothing(&mut world, "db/pg-1");
    assert_eq!(world.serving(), ["pg-1"], "an answer that decides nothing keeps the last role");
    down(&mut world, "db/pg-1");

    assert!(world.serving().is_empty());
    assert!(world.id("db/pg-1").is_none(), "a hung server never ends its flows");
}

#[test]
fn two_primaries_of_one_term_get_nothing_until_one_is_left() {
    let mut world = cluster();

    promote(&mut world, "pg-2", 1);
    assert!(world.serving().is_empty());
    assert_eq!(state(&mut world), PrimaryState::Contested);

    say(&mut world, "db/pg-1", replica(1));
    assert_eq!(world.serving(), ["pg-2"]);
}

#[test]
fn the_operator_chooses_among_two_primaries_of_one_term() {
    let mut world = cluster();
    promote(&mut world, "pg-2", 1);

    let refused = world.ask(|reply| Request::Force { backend: name("db/pg-3"), reply }).unwrap_err();
    assert!(refused.detail.contains("promote it first"), "{refused:?}");
    let chosen = world.ask(|reply| Request::Force { backend: name("db/pg-2"), reply }).unwrap();

    assert_eq!((chosen.primary.as_deref(), chosen.forced.as_deref()), (Some("pg-2"), Some("pg-2")));
    assert_eq!(world.serving(), ["pg-2"]);
    say(&mut world, "db/pg-1", primary(1));
    assert_eq!(world.serving(), ["pg-2"]);
}

#[test]
fn a_server_of_another_cluster_is_never_the_primary() {
    let mut world = cluster();
    down(&mut world, "db/pg-1");
    let stranger = Mark::Postgres { system: 1, timeline: Some(9), position: 0 };

    for _ in 0..10 {
        say(&mut world, "db/pg-2", RoleReport { mark: stranger.clone(), ..primary(9) });
    }

    assert!(world.serving().is_empty());
    assert_eq!(world.host().saved_roles.terms[&ClusterId(SYSTEM)], 1);
}

#[test]
fn a_new_primary_is_logged_with_the_old_one_and_both_marks() {
    let mut world = cluster();
    logging::capture();
    logging::captured();

    promote(&mut world, "pg-2", 2);

    let lines = logging::captured();
    let line = lines.iter().find(|line| line.starts_with("the primary has changed")).unwrap();
    let expected = "the primary has changed service=db from=db/pg-1 from_mark=timeline 1 to=db/pg-2 \
                    to_mark=timeline 2, 0/3E8 refused_ms=";
    assert!(line.starts_with(expected), "{line}");
}

#[test]
fn a_restart_keeps_the_primary_and_its_flows() {
    let mut world = cluster();
    let id = world.id("db/pg-1");

    world.restart();
    assert_eq!((world.serving(), world.id("db/pg-1")), (vec!["pg-1".to_owned()], id));
    assert_eq!(offered(&world, "db-read"), ["pg-2", "pg-3"]);
    world.absorb(Event::Hops(hops(world.spec())));
    say(&mut world, "db/pg-2", replica(1));
    say(&mut world, "db/pg-1", primary(1));

    assert_eq!((world.serving(), world.id("db/pg-1")), (vec!["pg-1".to_owned()], id));
}

#[test]
fn servers_that_got_flows_before_their_service_had_a_role_are_not_taken_for_the_primary() {
    let mut without_role = services();
    without_role[0].role = RolePolicy::default();
    let mut world = World::all_up(without_role);
    assert_eq!(world.serving(), ["pg-1", "pg-2", "pg-3"]);
    world.host().file = Ok(spec(services()));

    world.restart();

    assert!(world.serving().is_empty(), "none has said that it is the primary");
    world.absorb(Event::Hops(hops(world.spec())));
    for (server, report) in [("db/pg-1", primary(1)), ("db/pg-2", replica(1)), ("db/pg-3", replica(1))] {
        say(&mut world, server, report);
    }
    assert_eq!(world.serving(), ["pg-1"]);
}

#[test]
fn a_service_that_gets_a_role_goes_by_what_its_servers_said_last() {
    let mut without_roles = services();
    without_roles.iter_mut().for_each(|service| service.role = RolePolicy::default());
    let mut world = cluster_from(without_roles, reports);
    assert_eq!(world.serving(), ["pg-1", "pg-2", "pg-3"]);
    let (primary, replica) = (world.id("db/pg-1"), world.id("db-read/pg-2"));
    // The service for reads comes first in the file.
    let mut with_roles = services();
    with_roles.reverse();
    world.host().file = Ok(spec(with_roles));

    world.ask(Request::Reload).unwrap();

    assert_eq!((world.id("db/pg-1"), world.id("db-read/pg-2")), (primary, replica), "their flows stay");
    assert_eq!(offered(&world, "db"), ["pg-1"]);
    assert_eq!(offered(&world, "db-read"), ["pg-2", "pg-3"]);
}

#[test]
fn a_start_without_maps_waits_for_all_servers() {
    let mut world = World::unprobed(services());

    for _ in 0..3 {
        say(&mut world, "db/pg-1", primary(1));
    }
    assert!(world.serving().is_empty(), "pg-2 may be newer");
    say(&mut world, "db/pg-2", primary(2));
    down(&mut world, "db/pg-3");

    assert_eq!(world.serving(), ["pg-2"]);
}

#[test]
fn a_replica_that_follows_no_primary_or_another_timeline_gets_no_new_reads() {
    let mut world = cluster();
    promote(&mut world, "pg-2", 2);
    for _ in 0..3 {
        say(&mut world, "db-read/pg-2", primary(2));
        // It still receives from the old primary.
        say(&mut world, "db-read/pg-3", replica(1));
    }
    assert_eq!(offered(&world, "db-read"), ["pg-2"], "the primary serves reads if no replica can");

    for _ in 0..2 {
        say(&mut world, "db-read/pg-3", replica(2));
    }
    assert_eq!(offered(&world, "db-read"), ["pg-3"]);
    for _ in 0..3 {
        say(&mut world, "db-read/pg-3", RoleReport { is_following: false, lag: None, ..replica(2) });
    }
    assert_eq!(offered(&world, "db-read"), ["pg-2"]);
}

#[test]
fn a_replica_that_is_too_far_behind_gets_no_new_reads_and_keeps_its_flows() {
    let mut world = cluster();
    let id = world.id("db-read/pg-3");
    let behind = |ms| RoleReport { lag: Some(Duration::from_millis(ms)), ..replica(1) };

    for _ in 0..3 {
        say(&mut world, "db-read/pg-3", behind(5_001));
    }
    assert_eq!(offered(&world, "db-read"), ["pg-2"]);
    assert_eq!(world.id("db-read/pg-3"), id, "on_role_change = keep");
    for _ in 0..2 {
        say(&mut world, "db-read/pg-3", behind(5_000));
    }
    assert_eq!(offered(&world, "db-read"), ["pg-2", "pg-3"]);
}

#[test]
fn replicas_of_the_last_timeline_serve_reads_while_there_is_no_primary() {
    for (timeline_of_pg_3, expected) in [(2, &["pg-1", "pg-3"][..]), (1, &["pg-1"])] {
        let mut world = cluster();
        promote(&mut world, "pg-2", 2);
        for _ in 0..3 {
            say(&mut world, "db-read/pg-1", replica(2));
            say(&mut world, "db-read/pg-3", replica(timeline_of_pg_3));
        }
        down(&mut world, "db/pg-2");
        down(&mut world, "db-read/pg-2");

        for _ in 0..10 {
            for server in ["db-read/pg-1", "db-read/pg-3"] {
                let mark = Mark::Postgres { system: SYSTEM, timeline: None, position: 1_000 };
                say(&mut world, server, RoleReport { is_following: false, lag: None, mark, ..replica(1) });
            }
        }

        assert_eq!(offered(&world, "db-read"), expected);
    }
}

#[test]
fn redis_the_server_that_continues_the_other_one_is_newer() {
    let mut world = cluster_of(|number| redis(number == 1, "a", None));
    assert_eq!(world.serving(), ["pg-1"]);

    for _ in 0..2 {
        say(&mut world, "db/pg-2", redis(true, "b", Some("a")));
        say(&mut world, "db/pg-1", redis(true, "a", None));
    }
    assert_eq!(world.serving(), ["pg-2"]);

    // The old one is restarted, which gives it another id.
    down(&mut world, "db/pg-2");
    for _ in 0..5 {
        say(&mut world, "db/pg-1", redis(true, "c", Some("a")));
    }
    assert!(world.serving().is_empty());
    // The new one is restarted.
    for _ in 0..2 {
        say(&mut world, "db/pg-2", redis(true, "d", Some("b")));
    }
    assert_eq!(world.serving(), ["pg-2"]);
}

#[test]
fn mysql_two_writable_servers_get_nothing() {
    let mysql = |number: u32, is_primary| RoleReport {
        role: if is_primary { Role::Primary } else { Role::Replica },
        is_following: !is_primary,
        lag: Some(Duration::ZERO),
        mark: Mark::Mysql { server: number, follows: (!is_primary).then_some(1), gtid: String::new() },
    };
    let mut world = cluster_of(|number| mysql(number, number == 1));
    assert_eq!(world.serving(), ["pg-1"]);

    for _ in 0..2 {
        say(&mut world, "db/pg-2", mysql(2, true));
    }
    assert!(world.serving().is_empty());
    assert_eq!(state(&mut world), PrimaryState::Contested);
    say(&mut world, "db/pg-1", mysql(1, false));
    assert_eq!(world.serving(), ["pg-2"]);
}

#[test]
fn a_rename_of_service_and_servers_ends_no_flow() {
    let mut world = cluster();
    let id = world.id("db/pg-1");
    let mut renamed = services();
    renamed[0].name = "database".to_owned();
    renamed[0].backends[0].name = "first".to_owned();
    world.host().file = Ok(spec(renamed));

    world.ask(Request::Reload).unwrap();

    assert_eq!(world.id("database/first"), id);
    assert_eq!(world.serving(), ["first"]);
}

/// pg-1 is the primary on timeline 1, pg-2 and pg-3 follow it.
pub(super) fn cluster() -> World {
    cluster_of(reports)
}

pub(super) fn reports(number: u32) -> RoleReport {
    if number == 1 { primary(1) } else { replica(1) }
}

pub(super) fn cluster_of(report: impl Fn(u32) -> RoleReport) -> World {
    cluster_from(services(), report)
}

pub(super) fn cluster_from(services: Vec<Service>, report: impl Fn(u32) -> RoleReport) -> World {
    let mut world = World::unprobed(services);
    for number in 1..=3 {
        say(&mut world, &format!("db/pg-{number}"), report(number));
    }
    for number in 1..=3 {
        say(&mut world, &format!("db-read/pg-{number}"), report(number));
    }
    world.settle();
    world
}

/// Two services with the same servers: for writes, and for reads with the primary as the last resort.
pub(super) fn services() -> Vec<Service> {
    let servers = || -> Vec<_> {
        (1..=3).map(|n| backend(&format!("pg-{n}"), &format!("10.0.0.{}:5432", 30 + n))).collect()
    };
    let policy = |wanted| RolePolicy { wanted: Some(wanted), ..RolePolicy::default() };
    let mut writes = fixture::service("db", Protocol::Tcp, "192.0.2.10:5432", servers());
    writes.role = policy(Role::Primary);
    let mut reads = fixture::service("db-read", Protocol::Tcp, "192.0.2.10:5433", servers());
    reads.backends.iter_mut().for_each(|it| it.backup = true);
    reads.role = RolePolicy {
        on_change: OnRoleChange::Keep,
        max_lag: Some(Duration::from_secs(5)),
        ..policy(Role::Replica)
    };
    vec![writes, reads]
}

pub(super) fn primary(timeline: u32) -> RoleReport {
    let mark = Mark::Postgres { system: SYSTEM, timeline: Some(timeline), position: 1_000 };
    RoleReport { role: Role::Primary, is_following: false, lag: None, mark }
}

pub(super) fn replica(timeline: u32) -> RoleReport {
    RoleReport { role: Role::Replica, is_following: true, lag: Some(Duration::ZERO), ..primary(timeline) }
}

pub(super) fn redis(is_primary: bool, id: &str, former: Option<&str>) -> RoleReport {
    let role = if is_primary { Role::Primary } else { Role::Replica };
    let mark = Mark::Redis { id: id.to_owned(), former_id: former.map(str::to_owned), offset: 120 };
    RoleReport { role, is_following: !is_primary, lag: Some(Duration::ZERO), mark }
}

pub(super) fn say(world: &mut World, server: &str, report: RoleReport) {
    let mut probed = probed(&world.controller.state, server, Health::Up);
    probed.result.facts = Facts { role: Some(report), ..Facts::default() };
    world.absorb(Event::Probed(probed));
}

/// It answers, but says nothing of its role.
pub(super) fn say_nothing(world: &mut World, server: &str) {
    let mut probed = probed(&world.controller.state, server, Health::Up);
    (probed.change, probed.result.outcome) = (None, ProbeOutcome::Undecided);
    world.absorb(Event::Probed(probed));
}

pub(super) fn down(world: &mut World, server: &str) {
    world.probed(server, Health::Down);
}

/// It says that it is the primary, as often as is necessary.
pub(super) fn promote(world: &mut World, server: &str, timeline: u32) {
    for _ in 0..2 {
        say(world, &format!("db/{server}"), primary(timeline));
    }
}

pub(super) fn state(world: &mut World) -> PrimaryState {
    world.ask(Request::Roles).unwrap()[0].state
}

/// The names of the backends of a service that get new flows.
pub(super) fn offered(world: &World, service: &str) -> Vec<String> {
    let maps = &world.controller.datapath.maps;
    let backends = maps.backends.values().filter(|it| it.accepts != 0);
    let names = backends.map(|it| &maps.backend_names[&it.counters]).filter(|it| it.service == service);
    let mut names: Vec<_> = names.map(|it| it.backend.clone()).collect();
    names.sort();
    names
}
