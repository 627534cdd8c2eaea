//! Backends that fail: quorum, panic, and the flows of a backend that goes down.

use super::*;
use crate::{
    named::Named as _,
    spec::{Availability, OnDown, OnRefused, Percent, Scheduler},
};

fn web_with(availability: Availability) -> Service {
    Service { availability, ..web(Protocol::Tcp) }
}

fn panics_below(percent: u32) -> Availability {
    Availability { panic_threshold: Percent(percent), ..Availability::default() }
}

const RESETS: fn() -> Availability = || Availability { on_down: OnDown::Reset, ..Availability::default() };

pub(super) fn down(world: &mut World, backends: &[&str]) {
    backends.iter().for_each(|backend| world.probed(backend, Health::Down));
}

fn readiness(world: &mut World) -> (bool, u32) {
    let service = world.ask(Request::Services).unwrap().remove(0);
    let summary = world.status().services.remove(0);
    assert_eq!((service.ready, service.backends_available), (summary.ready, summary.backends_available));
    (service.ready, service.backends_available)
}

#[test]
fn a_service_is_ready_while_its_quorum_of_backends_is_available() {
    let quorum = Availability { quorum: 2, ..Availability::default() };
    let mut world = World::all_up(vec![web_with(quorum)]);
    assert_eq!(readiness(&mut world), (true, 3));
    assert_eq!(world.ask(node_readiness).unwrap(), [""; 0]);

    world.set("web/web-1", AdminState::Drain);
    assert_eq!(readiness(&mut world), (true, 2));
    world
        .ask(change(name("web/web-2"), BackendPatch { weight: Some(0), ..BackendPatch::default() }))
        .unwrap();

    assert_eq!(readiness(&mut world), (false, 1));
    assert_eq!(world.ask(node_readiness).unwrap(), ["service web is not ready: 1 available, quorum 2"]);

    world.set("web/web-1", AdminState::Maint);
    world
        .ask(change(name("web/web-2"), BackendPatch { weight: Some(1), ..BackendPatch::default() }))
        .unwrap();
    assert_eq!(readiness(&mut world), (true, 2));
    let mut seen = hops(world.spec());
    seen.insert(path("10.0.0.12".parse().unwrap()), HopState::NoRoute);
    world.absorb(Event::Hops(seen));
    assert_eq!(readiness(&mut world), (false, 1), "unreachable");
}

/// As in HAProxy's `nbsrv`.
#[test]
fn backups_count_for_the_quorum_only_while_they_are_used() {
    let mut service = web_with(Availability { quorum: 2, ..Availability::default() });
    service.backends[1].backup = true;
    service.backends[2].backup = true;
    let mut world = World::all_up(vec![service]);
    assert_eq!(readiness(&mut world), (false, 1));

    down(&mut world, &["web/web-1"]);

    assert_eq!(readiness(&mut world), (true, 2));
}

#[test]
fn both_families_together_make_the_quorum() {
    let mut service = web_with(Availability { quorum: 3, ..Availability::default() });
    service.listen.push(socket("[2001:db8::10]:80"));
    service.sources.push("fd00::1".parse().unwrap());
    service.backends[2] = backend("web-v6", "[fd00::11]:8080");
    let mut world = World::all_up(vec![service]);

    assert_eq!(readiness(&mut world), (true, 3));
}

#[test]
fn a_service_is_judged_apart_from_the_others() {
    let mut world =
        World::all_up(vec![web_with(Availability { quorum: 3, ..Availability::default() }), dns()]);
    let of = |name: &str| {
        let service = Some(name.to_owned());
        |reply| Request::Readiness { service, reply }
    };

    down(&mut world, &["web/web-1"]);

    assert_eq!(world.ask(of("web")).unwrap(), ["service web is not ready: 2 available, quorum 3"]);
    assert_eq!(world.ask(of("dns")).unwrap(), [""; 0]);
    assert_eq!(world.ask(of("mail")).unwrap_err().kind, ProblemKind::NotFound);
}

#[test]
fn a_service_is_ready_once_its_maps_have_been_read_back() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    down(&mut world, &["web/web-1", "web/web-2", "web/web-3"]);
    assert_eq!(readiness(&mut world), (false, 0));
    world.is_paced = true;
    world.probed("web/web-1", Health::Up);
    assert_eq!(readiness(&mut world), (true, 1), "read back at once");
    down(&mut world, &["web/web-1"]);

    world.probed("web/web-1", Health::Up);

    assert_eq!(readiness(&mut world), (false, 1), "at most ten times a second");
    let reasons = world.ask(node_readiness).unwrap();
    assert_eq!(reasons, ["service web is not ready: its maps have not been read back yet"]);
    world.wait(200);
    assert_eq!(readiness(&mut world), (true, 1));
}

#[test]
fn maps_that_were_changed_by_another_program_make_no_service_ready() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    down(&mut world, &["web/web-1", "web/web-2", "web/web-3"]);
    world.wait(200);
    world.maps().loses_writes = true;

    world.probed("web/web-1", Health::Up);

    assert!(!readiness(&mut world).0);
    world.maps().loses_writes = false;
    world.wait(1_100);
    assert_eq!(readiness(&mut world), (true, 1), "repaired, and read back");
}

#[test]
fn a_node_whose_maps_cannot_be_updated_is_not_ready() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.maps().fail_after = Some(0);

    down(&mut world, &["web/web-1"]);

    let reasons = world.ask(node_readiness).unwrap();
    assert!(reasons.len() == 1 && reasons[0].starts_with("cannot update the maps: "), "{reasons:?}");
    world.wait(1_100);
    assert_eq!(world.ask(node_readiness).unwrap(), [""; 0]);
}

#[test]
fn below_the_threshold_health_is_ignored_by_every_scheduler() {
    for scheduler in Scheduler::ALL {
        below_the_threshold_health_is_ignored(*scheduler);
    }
}

fn below_the_threshold_health_is_ignored(scheduler: Scheduler) {
    let mut world = World::all_up(vec![Service { scheduler, ..web_with(panics_below(50)) }]);
    let ids = ["web/web-1", "web/web-2", "web/web-3"].map(|backend| world.id(backend));

    down(&mut world, &["web/web-1"]);
    assert_eq!(world.offered(), ["web-2", "web-3"]);
    assert_eq!(world.status().warnings, [""; 0]);

    down(&mut world, &["web/web-2"]);
    assert_eq!(world.offered(), ["web-1", "web-2", "web-3"]);
    assert_eq!(
        world.status().warnings,
        [
            "service web is in panic: fewer than 50 % of its IPv4 backends are up (panic_threshold), so new flows go to \
          all of them; check the servers, and the checks"
        ]
    );
    assert_eq!(readiness(&mut world), (true, 1), "panic adds nothing to the quorum");

    down(&mut world, &["web/web-3"]);
    assert_eq!(world.offered(), ["web-1", "web-2", "web-3"]);
    assert_eq!(readiness(&mut world), (false, 0));

    world.probed("web/web-1", Health::Up);
    world.probed("web/web-2", Health::Up);
    assert_eq!(world.offered(), ["web-1", "web-2"], "exactly enough");
    assert_eq!(["web/web-1", "web/web-2", "web/web-3"].map(|backend| world.id(backend)), ids);
}

#[test]
fn panic_does_not_reach_backends_that_an_operator_took_out_or_that_were_never_checked() {
    let mut service = web_with(panics_below(100));
    for (name, address) in [("web-4", "10.0.0.14:80"), ("web-5", "10.0.0.15:80"), ("web-6", "10.0.0.16:80")] {
        service.backends.push(backend(name, address));
    }
    service.backends[3].weight = 0;
    let mut world = World::unprobed(vec![service]);
    assert_eq!(world.serving(), [""; 0], "nothing is known yet");
    world.set("web/web-2", AdminState::Drain);
    world.set("web/web-3", AdminState::Maint);

    down(&mut world, &["web/web-1", "web/web-2", "web/web-3", "web/web-4", "web/web-5"]);

    assert_eq!(world.serving(), ["web-1", "web-5"]);
}

#[test]
fn the_tier_in_panic_is_the_one_in_use() {
    let mut service = web_with(panics_below(60));
    service.backends[1].backup = true;
    service.backends[2].backup = true;
    let mut world = World::all_up(vec![service]);

    down(&mut world, &["web/web-3"]);
    assert_eq!(world.serving(), ["web-1"], "the regular ones are all up");
    down(&mut world, &["web/web-1"]);
    assert_eq!(world.serving(), ["web-2", "web-3"], "one of two backups is not enough");
    down(&mut world, &["web/web-2"]);
    assert_eq!(world.serving(), ["web-1"], "nothing is up: the regular ones again");
    world.set("web/web-1", AdminState::Drain);
    assert_eq!(world.serving(), ["web-2", "web-3"], "no regular one could");
}

#[test]
fn a_family_in_panic_leaves_the_other_alone() {
    let mut service = web_with(panics_below(100));
    service.listen.push(socket("[2001:db8::10]:80"));
    service.sources.push("fd00::1".parse().unwrap());
    service.backends.push(backend("v6-1", "[fd00::11]:8080"));
    service.backends.push(backend("v6-2", "[fd00::12]:8080"));
    let mut world = World::all_up(vec![service]);

    down(&mut world, &["web/v6-1"]);

    let pools: Vec<usize> = world.maps().in_force().values().map(Vec::len).collect();
    assert_eq!(pools, [3, 2]);
    assert_eq!(world.status().warnings.len(), 1);
    assert!(world.status().warnings[0].contains("its IPv6 backends"));
}

#[test]
fn a_udp_backend_in_panic_keeps_its_flows_until_the_panic_is_over() {
    let mut world = World::all_up(vec![Service { availability: panics_below(100), ..dns() }]);
    let before = world.id("dns/dns-1").unwrap();

    down(&mut world, &["dns/dns-1", "dns/dns-2"]);
    assert_eq!(world.id("dns/dns-1"), Some(before));

    world.ask(patch("dns/dns-1", AdminState::Drain)).unwrap();
    assert_eq!(world.id("dns/dns-1"), None, "no candidate of the panic");
}

/// Otherwise the next daemon would take backends for up that are not, and the service for ready.
#[test]
fn a_restart_in_panic_changes_nothing_and_knows_which_backends_are_down() {
    let mut backup = Service { availability: panics_below(60), ..dns() };
    backup.backends.iter_mut().for_each(|it| it.backup = true);
    let mut world = World::all_up(vec![web_with(panics_below(100)), backup]);
    down(&mut world, &["web/web-1", "web/web-2", "web/web-3", "dns/dns-1"]);
    world.probed("web/web-3", Health::Up);
    world.wait(2_000);
    let before = world.maps().maps.clone();

    world.restart();
    world.wait(2_000);

    let after = world.maps().maps.clone();
    assert_eq!(Snapshot { hop_generation: before.hop_generation, ..after }, before);
    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    let health = world.ask(Request::Health).unwrap();
    let known: Vec<_> = health.iter().map(|it| it.health).collect();
    let (up, down) = (view::Health::Up, view::Health::Down);
    assert_eq!(known, [down, down, up, down, up]);
    assert_eq!(readiness(&mut world), (true, 1));
}

#[test]
fn with_on_down_reset_a_backend_that_goes_down_loses_its_flows() {
    let mut world = World::all_up(vec![web_with(RESETS())]);
    let before = world.id("web/web-1").unwrap();
    world.add_flows(before, 3);

    down(&mut world, &["web/web-1"]);
    world.settle();

    assert_eq!((world.id("web/web-1"), world.maps().held().len()), (None, 0));
    world.restart();
    assert_eq!(world.id("web/web-1"), None);
    let known = world.controller.state.targets().into_iter().map(|it| it.known).collect::<Vec<_>>();
    assert_eq!(known, [Some(Health::Down), Some(Health::Up), Some(Health::Up)]);

    world.absorb(Event::Hops(hops(world.spec())));
    world.probed("web/web-1", Health::Up);
    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    assert!(world.id("web/web-1").unwrap() > before);
}

#[test]
fn with_on_down_reset_a_backend_that_is_not_down_keeps_its_flows() {
    let mut world = World::unprobed(vec![web_with(RESETS())]);
    assert!(world.id("web/web-1").is_some(), "not checked yet");
    world.probed("web/web-1", Health::Up);
    let before = world.id("web/web-1");

    world.set("web/web-1", AdminState::Drain);

    assert_eq!(world.id("web/web-1"), before);
}

#[test]
fn a_refusal_is_hidden_while_another_backend_gets_new_flows() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let retries = |world: &World| {
        ["web-1", "web-2", "web-3"].map(|backend| {
            let id = world.id(&format!("web/{backend}")).unwrap();
            world.controller.datapath.maps.backend(id).unwrap().retries
        })
    };
    assert_eq!(retries(&world), [1, 1, 1]);

    // It may still refuse flows that it got before.
    down(&mut world, &["web/web-1"]);
    assert_eq!(retries(&world), [1, 1, 1]);
    world.set("web/web-2", AdminState::Drain);
    assert_eq!(retries(&world), [1, 1, 0]);
    down(&mut world, &["web/web-3"]);
    assert_eq!(retries(&world), [0, 0, 0]);
}

#[test]
fn with_on_down_reset_panic_keeps_the_flows() {
    let mut world =
        World::all_up(vec![web_with(Availability { on_down: OnDown::Reset, ..panics_below(50) })]);
    let before = world.id("web/web-1");

    down(&mut world, &["web/web-3"]);
    assert_eq!(world.id("web/web-3"), None);
    down(&mut world, &["web/web-1"]);
    assert_eq!(world.id("web/web-1"), before);
    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);

    world.probed("web/web-3", Health::Up);
    assert_eq!(world.id("web/web-1"), None, "the panic is over");
}

#[test]
fn a_reload_lists_each_key_that_changed() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let availability = Availability {
        quorum: 2,
        panic_threshold: Percent(50),
        on_down: OnDown::Reset,
        on_refused: OnRefused::Pass,
        slow_start: Duration::from_secs(30),
    };
    world.host().file = Ok(spec(vec![web_with(availability)]));

    let reloaded = world.ask(Request::Reload).unwrap();

    assert_eq!(
        reloaded.changes,
        [
            "web: quorum changed",
            "web: panic_threshold changed",
            "web: on_down changed",
            "web: on_refused changed",
            "web: slow_start changed"
        ]
    );
}

#[test]
fn the_effective_weight_is_that_with_which_a_backend_gets_new_flows() {
    let mut service = web_with(panics_below(50));
    service.backends[1].backup = true;
    service.backends[2].weight = 7;
    let mut world = World::all_up(vec![service]);
    let weights = |world: &mut World| -> Vec<u32> {
        let backends = world.ask(|reply| Request::Backends { service: None, reply }).unwrap();
        backends.iter().map(|it| it.effective_weight).collect()
    };
    assert_eq!(weights(&mut world), [100, 0, 7], "the backup gets none");

    down(&mut world, &["web/web-1"]);
    assert_eq!(weights(&mut world), [0, 0, 7]);
    down(&mut world, &["web/web-2", "web/web-3"]);
    assert_eq!(weights(&mut world), [100, 0, 7], "panic");
    world.set("web/web-1", AdminState::Maint);
    assert_eq!(weights(&mut world), [0, 0, 7]);
}

fn node_readiness(reply: Reply<Vec<String>>) -> Request {
    Request::Readiness { service: None, reply }
}
