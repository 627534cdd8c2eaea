//! Fences: no writes until there is a newer primary.

use super::{
    roles::{cluster, down, offered, primary, promote, redis, replica, say, services, state},
    *,
};
use crate::{
    probe::{Mark, Role, RoleReport},
    view::PrimaryState,
};

#[test]
fn a_fence_ends_all_flows_and_only_a_newer_primary_ends_the_fence() {
    let mut world = cluster();

    let fenced = world.ask(|reply| Request::Fence { service: "db".to_owned(), reply }).unwrap();

    assert_eq!((fenced.state, fenced.fenced), (PrimaryState::Fenced, true));
    assert!(world.serving().is_empty() && world.id("db/pg-1").is_none());
    assert_eq!(offered(&world, "db-read"), ["pg-2", "pg-3"], "reads go on");
    world.restart();
    world.absorb(Event::Hops(hops(world.spec())));
    for _ in 0..5 {
        say(&mut world, "db/pg-1", primary(1));
        say(&mut world, "db/pg-2", replica(1));
        say(&mut world, "db/pg-3", replica(1));
    }
    assert!(world.serving().is_empty(), "the fence outlives the daemon");
    assert_eq!(state(&mut world), PrimaryState::Fenced);

    promote(&mut world, "pg-2", 2);
    assert_eq!(world.serving(), ["pg-2"]);
    assert!(!world.ask(Request::Roles).unwrap()[0].fenced);
    assert!(world.host().saved_roles.services["db"].fence.is_none());
}

#[test]
fn a_fence_of_an_unknown_primary_stays_until_the_operator_ends_it() {
    for report in [primary(1), redis(true, "a", None)] {
        let mut world = World::unprobed(services());
        world.ask(|reply| Request::Fence { service: "db".to_owned(), reply }).unwrap();

        for _ in 0..5 {
            say(&mut world, "db/pg-1", report.clone());
            down(&mut world, "db/pg-2");
            down(&mut world, "db/pg-3");
        }

        assert!(world.serving().is_empty());
        assert_eq!(state(&mut world), PrimaryState::Fenced);
    }
}

#[test]
fn the_operator_can_end_a_fence() {
    let mut world = cluster();
    world.ask(|reply| Request::Fence { service: "db".to_owned(), reply }).unwrap();

    world.ask(|reply| Request::Unfence { service: "db".to_owned(), reply }).unwrap();

    assert_eq!(world.serving(), ["pg-1"]);
}

#[test]
fn a_fence_that_cannot_be_saved_is_in_force_and_reported() {
    let mut world = cluster();
    world.host().is_full = true;

    let problem = world.ask(|reply| Request::Fence { service: "db".to_owned(), reply }).unwrap_err();

    assert!(problem.detail.contains("no space left"), "{problem:?}");
    assert!(world.serving().is_empty());
    world.host().is_full = false;
    world.wait(1_000);
    assert!(world.host().saved_roles.services["db"].fence.is_some());
}

#[test]
fn services_without_a_primary_cannot_be_fenced() {
    let mut world = cluster();

    let problem = world.ask(|reply| Request::Fence { service: "db-read".to_owned(), reply }).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Conflict);
    let problem = world.ask(|reply| Request::Fence { service: "mail".to_owned(), reply }).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::NotFound);
}

#[test]
fn without_marks_all_servers_that_said_primary_are_fenced() {
    let mut world = World::unprobed(services());
    for server in ["db/pg-1", "db/pg-2"] {
        say(&mut world, server, mariadb(server));
    }
    down(&mut world, "db/pg-3");
    assert_eq!(state(&mut world), PrimaryState::Contested);

    let fenced = world.ask(|reply| Request::Fence { service: "db".to_owned(), reply }).unwrap();

    assert!(fenced.fenced && world.serving().is_empty());
    for server in ["db/pg-1", "db/pg-2", "db/pg-1", "db/pg-2"] {
        say(&mut world, server, mariadb(server));
        assert_eq!(state(&mut world), PrimaryState::Fenced);
    }
    down(&mut world, "db/pg-1");
    down(&mut world, "db/pg-2");
    for _ in 0..2 {
        say(&mut world, "db/pg-3", mariadb("db/pg-3"));
    }
    assert_eq!(world.serving(), ["pg-3"]);
}

#[test]
fn a_rename_while_the_daemon_is_stopped_keeps_the_primary_and_the_fence() {
    for is_fenced in [false, true] {
        let mut world = cluster();
        let id = world.id("db/pg-1");
        if is_fenced {
            world.ask(|reply| Request::Fence { service: "db".to_owned(), reply }).unwrap();
        }
        let mut renamed = services();
        renamed[0].name = "database".to_owned();
        world.host().file = Ok(spec(renamed));

        world.restart();
        world.absorb(Event::Hops(hops(world.spec())));
        for _ in 0..3 {
            say(&mut world, "database/pg-1", primary(1));
            say(&mut world, "database/pg-2", replica(1));
            say(&mut world, "database/pg-3", replica(1));
        }

        let expected = if is_fenced { None } else { id };
        assert_eq!(world.id("database/pg-1"), expected, "fenced: {is_fenced}");
    }
}

#[test]
fn a_rename_does_not_bring_back_what_a_removed_service_left() {
    let mut world = cluster();
    world.ask(|reply| Request::Fence { service: "db".to_owned(), reply }).unwrap();
    let mut without_fence = services();
    without_fence[0].name = "orders".to_owned();
    let mut other = services().remove(0);
    (other.name, other.listen) = ("orders".to_owned(), vec!["192.0.2.10:5440".parse().unwrap()]);
    world.host().file = Ok(spec([services(), vec![other]].concat()));
    world.ask(Request::Reload).unwrap();
    for number in 1..=3 {
        let report = if number == 1 { primary(1) } else { replica(1) };
        say(&mut world, &format!("orders/pg-{number}"), report);
    }
    world.host().file = Ok(spec(services()));
    world.ask(Request::Reload).unwrap();

    world.host().file = Ok(spec(without_fence));
    world.ask(Request::Reload).unwrap();

    assert!(world.ask(Request::Roles).unwrap()[0].fenced, "it was db, which is fenced");
}

#[test]
fn a_chosen_server_that_is_not_steady_yet_lets_no_other_one_in() {
    let mut world = World::unprobed(services());
    say(&mut world, "db/pg-1", mariadb("db/pg-1"));
    say(&mut world, "db/pg-2", RoleReport { role: Role::Replica, ..mariadb("db/pg-2") });
    down(&mut world, "db/pg-3");
    assert_eq!(world.serving(), ["pg-1"]);
    say(&mut world, "db/pg-2", mariadb("db/pg-2"));

    world.ask(|reply| Request::Force { backend: name("db/pg-2"), reply }).unwrap();

    assert!(world.serving().is_empty());
    assert_eq!(state(&mut world), PrimaryState::NotSteady);
    say(&mut world, "db/pg-2", mariadb("db/pg-2"));
    assert_eq!(world.serving(), ["pg-2"]);
}

#[test]
fn servers_that_are_never_elected_leave_no_terms() {
    let mut world = World::unprobed(services());
    for system in 1..50 {
        let mark = Mark::Postgres { system, timeline: Some(9), position: 1 };
        say(&mut world, "db/pg-3", RoleReport { mark, ..primary(1) });
    }

    assert!(world.controller.state.roles().memory().terms.is_empty());
}

fn mariadb(server: &str) -> RoleReport {
    let number = server.bytes().last().unwrap_or_default().into();
    RoleReport { mark: Mark::Mysql { server: number, follows: None, gtid: String::new() }, ..primary(1) }
}
