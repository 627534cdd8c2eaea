//! Slow start: which backends begin one, how their shares grow, and what ends it.

use super::*;
use crate::spec::{Availability, Percent, Scheduler};

/// Each step lasts ten seconds.
const LENGTH: Duration = Duration::from_secs(100);
const STEP_MS: u64 = 10_000;

#[test]
fn each_scheduler_gives_a_backend_that_comes_up_its_share_in_ten_steps() {
    let cases: &[(Scheduler, [usize; 3])] = &[
        (Scheduler::RoundRobin, [1, 1, 1]),
        (Scheduler::WeightedRoundRobin, [50, 100, 20]),
        (Scheduler::RandomTwo, [50, 100, 20]),
        (Scheduler::SourceHash, [50, 100, 20]),
        (Scheduler::Maglev, [50, 100, 20]),
    ];
    for (scheduler, [a, b, c]) in cases {
        let mut service = Service { scheduler: *scheduler, ..slow() };
        for (backend, weight) in service.backends.iter_mut().zip([50, 100, 20]) {
            backend.weight = weight;
        }
        let mut world = World::all_up(vec![service]);
        comes_back(&mut world, "web/web-2");

        for tenths in 1..=10 {
            let shares = shares(&world);
            let (all, slots) = (10 * a + tenths * b + 10 * c, shares.iter().sum::<usize>());
            for (share, weight) in shares.iter().zip([10 * a, tenths * b, 10 * c]) {
                let (seen, exact) = (share * all, weight * slots);
                let tolerance = if scheduler.hashes() { exact / 50 } else { 0 };
                assert!(seen.abs_diff(exact) <= tolerance, "{scheduler:?} at {tenths}: {shares:?}");
            }
            world.wait(STEP_MS);
        }
        assert_eq!(world.controller.state.next_tick(), None, "{scheduler:?}");
    }
}

#[test]
fn least_connections_compares_the_parts_of_the_weights() {
    let mut world = World::all_up(vec![Service { scheduler: Scheduler::LeastConnections, ..slow() }]);
    comes_back(&mut world, "web/web-2");

    for tenths in 1..=10 {
        let weights: Vec<_> = world.maps().maps.backends.values().map(|it| it.weight).collect();
        assert_eq!(weights, [1000, tenths * 100, 1000]);
        assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
        world.wait(STEP_MS);
    }
}

#[test]
fn between_steps_nothing_changes_and_the_last_one_restores_the_order() {
    let mut world = World::all_up(vec![slow()]);
    comes_back(&mut world, "web/web-2");

    assert_eq!(shares(&world), [10, 1, 10]);
    world.wait(STEP_MS - 1);
    assert_eq!(shares(&world), [10, 1, 10]);
    world.wait(1);
    assert_eq!(shares(&world), [5, 1, 5]);
    world.wait(7 * STEP_MS);
    world.wait(STEP_MS - 1);
    assert_eq!(shares(&world), [10, 9, 10]);
    world.wait(1);
    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
}

#[test]
fn the_effective_weight_grows_and_is_never_below_one() {
    let mut service = slow();
    service.backends[2].weight = 1;
    let mut world = World::all_up(vec![service]);
    world.probed("web/web-2", Health::Down);
    assert_eq!(weights(&mut world), [100, 0, 1]);

    world.probed("web/web-2", Health::Up);
    comes_back(&mut world, "web/web-3");

    for tenths in 1..=10 {
        assert_eq!(weights(&mut world), [100, 10 * tenths, 1]);
        assert_eq!(weight(&mut world, "web/web-2"), 10 * tenths);
        world.wait(STEP_MS);
    }
}

#[tokio::test(start_paused = true)]
async fn the_loop_wakes_for_each_step() {
    let slow_start = Duration::from_secs(30);
    let availability = Availability { slow_start, ..Availability::default() };
    let mut world = World::all_up(vec![Service { availability, ..web(Protocol::Tcp) }]);
    let (events, mut inbox) = mpsc::channel(8);
    world.probed("web/web-2", Health::Down);
    let up = probed(&world.controller.state, "web/web-2", Health::Up);

    let script = async {
        events.send(Event::Probed(up)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3_500)).await;
    };
    run(&mut world.controller, &mut inbox, script).await;

    assert_eq!(shares(&world), [5, 1, 5]);
}

#[test]
fn there_is_no_slow_start_when_the_daemon_starts_and_a_restart_ends_one() {
    let mut world = World::all_up(vec![slow()]);
    assert_eq!(weights(&mut world), [100, 100, 100], "the first results");

    comes_back(&mut world, "web/web-1");
    world.probed("web/web-2", Health::Down);
    world.restart();
    assert_eq!(weights(&mut world), [100, 0, 100]);

    world.probed("web/web-2", Health::Up);
    assert_eq!(weights(&mut world), [100, 10, 100], "it was known to be down");
}

#[test]
fn without_the_key_a_backend_that_comes_up_has_its_share_at_once() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);

    comes_back(&mut world, "web/web-2");

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    world.wait(2_000);
    assert_eq!(world.controller.state.next_tick(), None);
}

#[test]
fn each_time_that_a_backend_comes_up_it_starts_slowly() {
    let mut world = World::all_up(vec![slow()]);
    comes_back(&mut world, "web/web-2");
    world.wait(4 * STEP_MS);
    world.probed("web/web-2", Health::Up);
    assert_eq!(weight(&mut world, "web/web-2"), 50, "it was up");

    comes_back(&mut world, "web/web-2");

    assert_eq!(weight(&mut world, "web/web-2"), 10);
    world.wait(9 * STEP_MS - 1);
    assert_eq!(weight(&mut world, "web/web-2"), 90);
}

#[test]
fn a_backend_that_is_ready_again_starts_slowly() {
    let mut world = World::all_up(vec![slow()]);
    for state in [AdminState::Drain, AdminState::Maint] {
        world.wait(10 * STEP_MS);
        world.set("web/web-1", state);
        assert_eq!(weight(&mut world, "web/web-1"), 0);

        world.set("web/web-1", AdminState::Ready);

        assert_eq!(weights(&mut world), [10, 100, 100], "{state:?}");
    }
    world.wait(2 * STEP_MS);
    world.set("web/web-1", AdminState::Ready);
    world.set("web/web-2", AdminState::Ready);
    assert_eq!(weights(&mut world), [30, 100, 100], "they were ready");
}

#[test]
fn another_weight_or_file_does_not_disturb_a_slow_start() {
    let mut world = World::all_up(vec![slow()]);
    comes_back(&mut world, "web/web-2");
    world.wait(3 * STEP_MS);

    let heavier = BackendPatch { weight: Some(200), ..BackendPatch::default() };
    world.ask(change(name("web/web-2"), heavier)).unwrap();
    assert_eq!(weights(&mut world), [100, 80, 100]);
    reload(&mut world, |web| {
        web.availability.quorum = 2;
        web.backends[0].weight = 7;
    });
    assert_eq!(weights(&mut world), [7, 80, 100]);

    world.wait(STEP_MS);
    assert_eq!(weights(&mut world), [7, 100, 100]);
}

#[test]
fn a_reload_with_another_time_applies_to_slow_starts_under_way() {
    for (slow_start, expected) in
        [(LENGTH / 2, 70), (LENGTH * 3, 20), (LENGTH / 4, 100), (Duration::ZERO, 100)]
    {
        let mut world = World::all_up(vec![slow()]);
        comes_back(&mut world, "web/web-2");
        world.wait(3 * STEP_MS);
        assert_eq!(weight(&mut world, "web/web-2"), 40);

        reload(&mut world, |web| web.availability.slow_start = slow_start);

        assert_eq!(weights(&mut world), [100, expected, 100], "{slow_start:?}");
        let most = world.controller.state.slots();
        assert!(world.serving().len() as u64 <= most, "{slow_start:?}");
        world.wait(3 * LENGTH.as_millis() as u64);
        assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    }
}

#[test]
fn a_slow_start_follows_the_backend_and_not_its_name() {
    let mut world = World::all_up(vec![slow()]);
    comes_back(&mut world, "web/web-2");

    reload(&mut world, |web| {
        (web.backends[0].name, web.backends[1].name) = ("web-2".into(), "web-1".into());
    });
    assert_eq!((weight(&mut world, "web/web-1"), weight(&mut world, "web/web-2")), (10, 100));

    reload(&mut world, |web| {
        web.name = "shop".into();
        web.backends[1].name = "shop-1".into();
    });
    assert_eq!((weight(&mut world, "shop/shop-1"), weight(&mut world, "shop/web-2")), (10, 100));
    world.wait(STEP_MS);
    assert_eq!(weight(&mut world, "shop/shop-1"), 20);
}

#[test]
fn a_backend_that_is_removed_leaves_no_slow_start() {
    let mut world = World::all_up(vec![slow()]);
    comes_back(&mut world, "web/web-3");

    reload(&mut world, |web| web.backends.truncate(2));

    assert_eq!(world.serving(), ["web-1", "web-2"]);
    world.wait(2_000);
    assert_eq!(world.controller.state.next_tick(), None);
}

#[test]
fn a_backend_that_is_added_to_a_running_service_starts_slowly() {
    let mut world = World::all_up(vec![slow()]);
    let body = NewBackend { address: socket("10.0.0.14:8080"), weight: 100, backup: false, max_flows: 0 };
    world.ask(add(name("web/web-4"), body)).unwrap();
    reload(&mut world, |web| web.backends.push(backend("web-5", "10.0.0.15:8080")));
    reload(&mut world, |web| web.backends[0].address = socket("10.0.0.16:8080"));
    world.absorb(Event::Hops(hops(world.spec())));
    assert_eq!(weights(&mut world), [0, 100, 100, 0, 0], "not checked yet");

    for added in ["web/web-1", "web/web-4", "web/web-5"] {
        world.probed(added, Health::Up);
    }

    assert_eq!(weights(&mut world), [10, 100, 100, 10, 10]);
}

#[test]
fn the_backends_of_a_service_that_is_added_have_their_weight_at_once() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let mut file = world.spec().clone();
    file.services
        .push(Service { name: "other".into(), listen: vec![socket("192.0.2.11:80")], ..slow() }.into());
    world.host().file = Ok(file);
    world.ask(Request::Reload).unwrap();

    world.probed("other/web-1", Health::Up);

    assert_eq!(weight(&mut world, "other/web-1"), 100);
}

#[test]
fn a_change_that_fails_leaves_slow_starts_as_they_were() {
    let mut world = World::all_up(vec![slow()]);
    world.set("web/web-1", AdminState::Drain);
    comes_back(&mut world, "web/web-2");
    world.wait(3 * STEP_MS);

    for is_full in [true, false] {
        world.wait(1);
        world.host().is_full = is_full;
        world.maps().fail_after = (!is_full).then_some(0);
        world.ask(patch("web/web-1", AdminState::Ready)).unwrap_err();
        assert_eq!(weights(&mut world), [0, 40, 100]);
        let web = &world.spec().services[0];
        let part = world.controller.state.part(web, &web.backends[0], &name("web/web-1"), &[]);
        assert_eq!(part.tenths, 10);
    }
    let edits: [fn(&mut Service); 3] = [
        |web| web.availability.slow_start = Duration::ZERO,
        |web| drop(web.backends.remove(1)),
        |web| web.name = "shop".into(),
    ];
    for edit in edits {
        let mut file = world.spec().clone();
        let mut service = Service::clone(&file.services[0]);
        edit(&mut service);
        file.services[0] = service.into();
        world.host().file = Ok(file);
        world.maps().fail_after = Some(0);
        world.ask(Request::Reload).unwrap_err();
        assert_eq!(weights(&mut world), [0, 40, 100]);
    }
    world.wait(STEP_MS);
    assert_eq!(weights(&mut world), [0, 50, 100]);
}

#[test]
fn backends_that_come_up_together_share_as_usual_and_a_single_one_gets_everything() {
    let mut world = World::all_up(vec![slow()]);
    let all = ["web/web-1", "web/web-2", "web/web-3"];
    all.iter().for_each(|backend| world.probed(backend, Health::Down));

    world.probed(all[0], Health::Up);
    assert_eq!(world.serving(), ["web-1"]);
    world.probed(all[1], Health::Up);
    world.probed(all[2], Health::Up);

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    world.wait(3 * STEP_MS);
    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    assert_eq!(weights(&mut world), [40, 40, 40]);
}

/// Otherwise the backends that are down would get more than those that have come up.
#[test]
fn in_panic_all_have_their_full_weight() {
    let mut service = slow();
    service.availability.panic_threshold = Percent(50);
    let mut world = World::all_up(vec![service]);
    for backend in ["web/web-1", "web/web-2", "web/web-3"] {
        world.probed(backend, Health::Down);
    }

    world.probed("web/web-1", Health::Up);
    assert_eq!(weights(&mut world), [100, 100, 100]);
    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);

    world.wait(STEP_MS);
    world.probed("web/web-2", Health::Up);
    assert_eq!(weights(&mut world), [20, 10, 0], "the panic is over");
    assert_eq!(shares(&world), [2, 1, 0]);
}

fn slow() -> Service {
    let availability = Availability { slow_start: LENGTH, ..Availability::default() };
    Service { availability, ..web(Protocol::Tcp) }
}

fn comes_back(world: &mut World, backend: &str) {
    world.probed(backend, Health::Down);
    world.probed(backend, Health::Up);
}

/// The slots of web-1, web-2 and web-3.
fn shares(world: &World) -> [usize; 3] {
    let serving = world.serving();
    ["web-1", "web-2", "web-3"].map(|backend| serving.iter().filter(|it| *it == backend).count())
}

fn weight(world: &mut World, backend: &str) -> u32 {
    world.ask(|reply| Request::Backend { backend: name(backend), reply }).unwrap().effective_weight
}

/// The effective weights of all backends.
fn weights(world: &mut World) -> Vec<u32> {
    let backends = world.ask(|reply| Request::Backends { service: None, reply }).unwrap();
    backends.iter().map(|backend| backend.effective_weight).collect()
}

fn reload(world: &mut World, edit: impl FnOnce(&mut Service)) {
    let mut file = world.host().file.clone().unwrap();
    let mut service = Service::clone(&file.services[0]);
    edit(&mut service);
    file.services[0] = service.into();
    world.host().file = Ok(file);
    world.ask(Request::Reload).unwrap();
}
