//! A daemon that takes over from a killed one.

use super::*;

#[test]
fn a_daemon_that_is_killed_and_started_again_changes_nothing() {
    let mut world = World::all_up(vec![web(Protocol::Tcp), dns()]);
    world.set("web/web-1", AdminState::Drain);
    world.set("web/web-2", AdminState::Maint);
    world.probed("dns/dns-1", Health::Down);
    world.wait(2_000);
    let before = world.maps().maps.clone();

    world.restart();
    world.wait(2_000);

    let after = world.maps().maps.clone();
    assert_eq!(after.hop_generation, before.hop_generation + 1, "routes may have changed meanwhile");
    assert_eq!(Snapshot { hop_generation: before.hop_generation, ..after }, before);
    let known: BTreeMap<_, _> =
        world.controller.state.targets().into_iter().map(|it| (it.backend.to_string(), it.known)).collect();
    assert_eq!(known["web/web-1"], None, "it gets no flows, up or down");
    assert_eq!(known["web/web-3"], Some(Health::Up));
    assert_eq!(known["dns/dns-1"], Some(Health::Down));
    assert_eq!(known["dns/dns-2"], Some(Health::Up));
}

#[test]
fn flows_left_by_a_killed_daemon_are_freed() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let alive = world.id("web/web-1").unwrap();
    world.add_flows(alive, 3);
    world.add_flows(BackendId(4_000), 3);

    world.restart();
    world.settle();

    assert!(world.maps().held().iter().all(|flow| flow.backend_id == alive));
    assert_eq!(world.maps().held().len(), 3);
}

#[test]
fn changes_overridden_by_the_file_at_a_start_stay_removed_at_the_next() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let as_it_was = world.host().file.clone();
    let body = BackendPatch { weight: Some(7), ..BackendPatch::default() };
    world.ask(change(name("web/web-1"), body)).unwrap();
    let mut edited = as_it_was.clone().unwrap();
    edited.services[0].backends[0].weight = 50;

    world.host().file = Ok(edited);
    world.restart();
    world.host().file = as_it_was;
    world.restart();

    assert_eq!(world.spec().services[0].backends[0].weight, 100);
    assert_eq!(world.status().overlay, [""; 0]);
}
