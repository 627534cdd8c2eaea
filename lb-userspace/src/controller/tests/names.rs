//! A rename does not make another backend or service.

use super::*;

type Edit = fn(&mut Spec);

const RENAMES: &[(&str, Edit)] = &[
    ("a backend", |it| it.services[0].backends[0].name = "web-9".into()),
    ("a service", |it| it.services[0].name = "shop".into()),
    ("two backends swap names", |it| {
        let [first, second, ..] = &mut it.services[0].backends[..] else { panic!("expected three") };
        std::mem::swap(&mut first.name, &mut second.name);
    }),
    ("two services swap names", |it| {
        let [first, second] = &mut it.services[..] else { panic!("expected two") };
        std::mem::swap(&mut first.name, &mut second.name);
    }),
    ("all of it", |it| {
        for (s, service) in it.services.iter_mut().enumerate() {
            service.name = format!("s{s}");
            for (b, backend) in service.backends.iter_mut().enumerate() {
                backend.name = format!("b{b}");
            }
        }
    }),
];

#[test]
fn a_rename_by_reload_keeps_flows_and_slots() {
    for (about, rename) in RENAMES {
        let mut world = World::all_up(vec![web(Protocol::Tcp), dns()]);
        let before = in_force(&mut world);
        world.host().file = Ok(renamed(&world, *rename));

        world.ask(Request::Reload).unwrap();

        assert_eq!(in_force(&mut world), before, "{about}");
        assert!(world.targets.borrow().iter().all(|it| it.known == Some(Health::Up)), "{about}");
    }
}

#[test]
fn a_rename_while_the_daemon_is_stopped_keeps_flows_and_slots() {
    for (about, rename) in RENAMES {
        let mut world = World::all_up(vec![web(Protocol::Tcp), dns()]);
        let before = in_force(&mut world);
        world.host().file = Ok(renamed(&world, *rename));

        world.restart();
        world.wait(2_000);

        assert_eq!(in_force(&mut world), before, "{about}");
        assert!(world.targets.borrow().iter().all(|it| it.known == Some(Health::Up)), "{about}");
    }
}

#[test]
fn a_probe_that_ends_after_a_rename_does_not_count_for_another_backend() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let late = probed(&world.controller.state, "web/web-1", Health::Down);
    world.host().file = Ok(renamed(&world, RENAMES[2].1));
    world.ask(Request::Reload).unwrap();

    world.absorb(Event::Probed(late));

    assert_eq!(world.serving(), ["web-2", "web-1", "web-3"]);
}

#[test]
fn a_reload_lists_renames() {
    let mut world = World::all_up(vec![web(Protocol::Tcp), dns()]);
    let mut file = world.spec().clone();
    file.services[0].backends[0].name = "web-9".into();
    file.services[1].name = "names".into();
    world.host().file = Ok(file);

    let reloaded = world.ask(Request::Reload).unwrap();

    assert_eq!(reloaded.changes, ["web/web-1: renamed to web-9", "dns: renamed to names"]);
}

#[test]
fn changes_by_commands_stay_with_the_name() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.set("web/web-1", AdminState::Drain);
    world.host().file = Ok(renamed(&world, RENAMES[0].1));

    world.ask(Request::Reload).unwrap();

    assert_eq!(world.status().overlay, ["web/web-1: drain (no longer in the configuration file)"]);
    assert_eq!(world.serving(), ["web-9", "web-2", "web-3"]);
}

fn renamed(world: &World, rename: Edit) -> Spec {
    let mut file = world.spec().clone();
    rename(&mut file);
    file
}

/// The backend ids that get new flows, by pool, and the address of each.
type InForce = (BTreeMap<PoolNumber, Vec<BackendId>>, Vec<(BackendId, IpAddr)>);

fn in_force(world: &mut World) -> InForce {
    let maps = world.maps();
    let backends = maps.maps.backends.values().map(|it| (it.id, it.address.to_ip()));
    (maps.in_force(), backends.collect())
}
