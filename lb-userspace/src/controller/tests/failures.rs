//! Operations that fail, and maps that others change.

use super::*;

#[test]
fn flows_left_by_a_failed_sweep_are_not_summed_and_are_freed_after_the_next_count() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let alive = world.id("web/web-1").unwrap();
    world.add_flows(alive, 3);
    world.add_flows(BackendId(4_000), 3);
    world.maps().fail_sweep = true;
    world.restart();
    world.settle();
    assert_eq!(world.maps().held().len(), 6);
    world.wait(2_000);

    let counted = world.ask(Request::FlowCount);

    assert_eq!(counted.unwrap().established, 3);
    assert_eq!(world.maps().held().len(), 3);
}

#[test]
fn a_failed_operation_is_repaired_a_second_later() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.maps().fail_after = Some(1);

    world.probed("web/web-2", Health::Down);

    let warnings = world.status().warnings;
    assert!(warnings[0].contains("no space left"), "{warnings:?}");

    world.wait(1_000);

    assert_eq!(world.serving(), ["web-1", "web-3"]);
    assert_eq!(world.status().warnings, [""; 0]);
}

#[test]
fn changes_by_others_are_repaired_at_the_next_resync() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let before = world.maps().maps.clone();
    let pool = *before.pools.keys().next().unwrap();
    world.maps().maps.apply(&Op::DeletePool(pool));
    world.maps().maps.apply(&Op::SetHopGeneration(77));

    world.controller.mark_stale();
    world.turn();

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    assert_eq!(world.maps().maps.hop_generation, before.hop_generation);
    assert_eq!(world.maps().maps.backends, before.backends);
}

#[test]
fn a_change_that_cannot_be_saved_is_not_applied() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let before = world.maps().maps.clone();
    world.host().is_full = true;

    let problem = world.ask(patch("web/web-1", AdminState::Maint)).unwrap_err();

    assert!(problem.detail.ends_with("nothing was changed"), "{problem:?}");
    assert_eq!(world.maps().maps, before);
    assert_eq!(world.status().overlay, [""; 0]);
}

#[test]
fn a_backend_that_cannot_be_added_is_not_watched() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let (targets, hops) = (world.targets.borrow().clone(), world.hops.borrow().clone());
    for steps in 0..2 {
        world.wait(2_000);
        world.maps().fail_after = Some(steps);
        let body = NewBackend { address: socket("10.0.0.14:8080"), weight: 100, backup: false, max_flows: 0 };

        world.ask(add(name("web/web-0"), body)).unwrap_err();

        let watched = world.targets.borrow().iter().map(|it| it.backend.clone()).collect::<Vec<_>>();
        assert_eq!(watched, targets.iter().map(|it| it.backend.clone()).collect::<Vec<_>>());
        assert_eq!(*world.hops.borrow(), hops);
    }
}

#[test]
fn answers_for_one_backend_and_for_all_agree_while_a_change_of_names_has_failed() {
    let other = Service { name: "other".into(), listen: vec![socket("192.0.2.11:80")], ..web(Protocol::Tcp) };
    let mut world = World::all_up(vec![web(Protocol::Tcp), other.clone()]);
    let id = world.id("web/web-1").unwrap();
    world.add_flows(id, 3);
    world.wait(2_000);
    world.host().file = Ok(spec(vec![Service { listen: other.listen, ..web(Protocol::Tcp) }]));
    world.maps().fail_after = Some(0);
    world.restart();
    world.ask(Request::FlowCount).unwrap();

    let all = world.ask(|reply| Request::Backends { service: Some("web".into()), reply }).unwrap();
    let one = world.ask(|reply| Request::Backend { backend: name("web/web-1"), reply }).unwrap();

    assert_eq!((one.flows, one.drained), (all[0].flows, all[0].drained));
    assert_eq!(one.flows, 3);
}

#[test]
fn a_change_that_cannot_be_applied_is_undone() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    for steps in 0..3 {
        world.wait(2_000);
        let before = world.maps().maps.backends.clone();
        world.maps().fail_after = Some(steps);

        let problem = world.ask(patch("web/web-1", AdminState::Drain)).unwrap_err();

        assert_eq!(problem.kind, ProblemKind::Failed);
        assert!(problem.detail.ends_with("all changes were undone"), "{problem:?}");
        assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
        assert_eq!(world.maps().maps.backends, before);
        assert_eq!(world.host().saved.last(), Some(&Overlay::default()), "the saved overlay is empty again");
    }
}
