//! The controller as a whole, with a datapath in memory and a fake host.

mod counters;
mod counts;
mod logging;
mod names;
mod sources;
mod warnings;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_common::{limits::Room, net::Protocol};
use tokio::sync::{mpsc, oneshot};

use self::world::{World, add, change, dns, patch, remove};
use super::{
    fixture::{backend, hop, hops, name, path, probed, socket, spec, web},
    *,
};
use crate::{
    datapath::Op,
    event::{HopState, Reply, Request},
    problem::{Problem, ProblemKind},
    spec::{AdminState, BackendPatch, NewBackend, Service},
    view::{self, FlowQuery},
};

#[test]
fn on_a_first_start_the_first_result_decides() {
    let mut world = World::unprobed(vec![web(Protocol::Tcp)]);
    assert_eq!(world.serving(), [""; 0]);

    world.probed("web/web-2", Health::Up);

    assert_eq!(world.serving(), ["web-2"]);
}

#[test]
fn backends_without_a_check_serve_at_once() {
    let unchecked = Service { health: None, ..web(Protocol::Tcp) };

    let world = World::unprobed(vec![unchecked]);

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
}

/// A change writes other slots, and the former ones are free again after a second. Many changes in that second need
/// more slots than there are.
#[test]
fn any_number_of_changes_in_a_second_fits() {
    let mut large = Service { health: None, ..web(Protocol::Tcp) };
    large.backends =
        (0..500).map(|n| backend(&format!("b{n}"), &format!("10.0.{}.{}:80", n >> 8, n & 255))).collect();
    let mut world = World::unprobed(vec![large]);

    for _ in 0..100 {
        world.set("web/b0", AdminState::Drain);
        world.set("web/b0", AdminState::Ready);
    }

    assert_eq!(world.serving().len(), 500);
    assert!(world.maps().grace_periods > 0);
}

/// A kernel with nohz_full refuses membarrier. Slots are then free after their second, also for a change that failed.
#[test]
fn a_change_that_found_no_room_succeeds_a_second_later_without_the_kernel() {
    let backends = (1..=4).map(|n| backend(&format!("b{n}"), &format!("10.0.0.{n}:80"))).collect();
    let mut world = World::unprobed(vec![Service { backends, ..web(Protocol::Tcp) }]);
    world.controller.state.set_room(Room { services: 1, backends: 4 });
    world.maps().refuses_grace_periods = true;
    for name in ["web/b1", "web/b2", "web/b3", "web/b4"] {
        world.probed(name, Health::Up);
    }
    for health in [Health::Down, Health::Down, Health::Down, Health::Up, Health::Up] {
        world.probed("web/b1", health);
    }
    assert_eq!(world.serving().len(), 3, "there was no room for the last change");

    world.wait(1100);

    assert_eq!(world.serving().len(), 4);
}

#[test]
fn a_backend_that_is_down_keeps_its_flows_and_gets_no_new_ones() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let before = world.id("web/web-2");

    world.probed("web/web-2", Health::Down);

    assert_eq!(world.serving(), ["web-1", "web-3"]);
    assert_eq!(world.id("web/web-2"), before);

    world.probed("web/web-2", Health::Up);

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"], "in the file's order");
    assert_eq!(world.id("web/web-2"), before);
}

#[test]
fn a_udp_backend_that_was_down_gets_another_id_and_its_flows_are_freed() {
    let mut world = World::all_up(vec![web(Protocol::Udp)]);
    let before = world.id("web/web-2").unwrap();
    world.add_flows(before, 5);

    world.probed("web/web-2", Health::Down);
    world.settle();

    assert_eq!(world.id("web/web-2"), None);
    assert_eq!(world.maps().held(), []);

    world.probed("web/web-2", Health::Up);

    assert!(world.id("web/web-2").unwrap() > before);
}

/// A packet that found the service just before finds the pool.
#[test]
fn a_pool_outlives_its_service_for_a_grace_period() {
    let mut world = World::all_up(vec![web(Protocol::Tcp), dns()]);
    let pools =
        |world: &mut World| -> Vec<usize> { world.maps().in_force().values().map(Vec::len).collect() };
    assert_eq!(pools(&mut world), [3, 2]);
    world.host().file = Ok(spec(vec![web(Protocol::Tcp)]));

    world.ask(Request::Reload).unwrap();

    assert_eq!(pools(&mut world), [3, 0], "no backend gets flows of a removed service");
    world.wait(900);
    assert_eq!(pools(&mut world), [3, 0]);
    world.wait(200);
    assert_eq!(pools(&mut world), [3]);
}

#[test]
fn drain_keeps_flows_and_maint_ends_them() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let before = world.id("web/web-1").unwrap();
    world.add_flows(before, 3);

    world.set("web/web-1", AdminState::Drain);
    world.settle();
    assert_eq!(world.serving(), ["web-2", "web-3"]);
    assert_eq!((world.id("web/web-1"), world.maps().held().len()), (Some(before), 3));

    world.set("web/web-1", AdminState::Maint);
    world.settle();
    assert_eq!((world.id("web/web-1"), world.maps().held().len()), (None, 0));

    world.set("web/web-1", AdminState::Ready);
    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    assert!(world.id("web/web-1").unwrap() > before);
    assert_eq!(world.host().saved.len(), 3, "each is saved for the next start");
}

#[test]
fn a_backup_gets_flows_only_while_no_other_backend_can() {
    let mut pair = web(Protocol::Tcp);
    pair.backends.truncate(2);
    pair.backends[1].backup = true;
    let mut world = World::all_up(vec![pair]);
    assert_eq!(world.serving(), ["web-1"]);

    world.probed("web/web-1", Health::Down);
    assert_eq!(world.serving(), ["web-2"]);

    world.probed("web/web-1", Health::Up);
    assert_eq!(world.serving(), ["web-1"]);

    world.set("web/web-1", AdminState::Drain);
    assert_eq!(world.serving(), ["web-2"]);
}

#[test]
fn without_live_backends_the_service_keeps_its_address_and_has_no_slots() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);

    for backend in ["web/web-1", "web/web-2", "web/web-3"] {
        world.probed(backend, Health::Down);
    }

    assert_eq!(world.serving(), [""; 0]);
    assert_eq!(world.maps().maps.services.len(), 3, "the listen address, its marker, and the source's");
}

#[test]
fn a_neighbour_that_the_kernel_dropped_still_gets_packets() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let mut seen = hops(world.spec());
    let forgotten = HopState::Unresolved { next_hop: [10, 0, 0, 12].into(), interface: "eth0".into() };
    seen.insert(path("10.0.0.12".parse().unwrap()), forgotten);

    world.absorb(Event::Hops(seen));

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    assert_eq!(world.status().warnings.len(), 1);
}

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
    world.add_flows(4_000, 3);

    world.restart();
    world.settle();

    assert!(world.maps().held().iter().all(|flow| flow.backend_id == alive));
    assert_eq!(world.maps().held().len(), 3);
}

#[test]
fn flows_left_by_a_failed_sweep_are_not_summed_and_are_freed_after_the_next_count() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let alive = world.id("web/web-1").unwrap();
    world.add_flows(alive, 3);
    world.add_flows(4_000, 3);
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

    world.controller.distrust();
    world.turn();

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    assert_eq!(world.maps().maps.hop_generation, before.hop_generation);
    assert_eq!(world.maps().maps.backends, before.backends);
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let before = world.maps().maps.clone();
    let mut problem = Problem::new(ProblemKind::InvalidConfiguration, "xlb.toml has 1 mistake");
    problem.mistakes.push("xlb.toml:12:9: `0` is not a port".into());
    world.host().file = Err(problem.clone());

    let answer = world.ask(Request::Reload);

    assert_eq!(answer.unwrap_err(), problem);
    assert_eq!(world.maps().maps, before);
    let status = world.status();
    assert_eq!(status.last_reload_error.as_deref(), Some("xlb.toml has 1 mistake"));
    assert!(!status.last_reload_successful);
}

#[test]
fn a_reload_lists_changes_and_what_needs_a_restart() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let kept = world.id("web/web-2");
    let mut file = world.spec().clone();
    file.limits.flows += 1;
    file.metrics = Some(socket("127.0.0.1:9292"));
    file.services[0].backends[0].address = socket("10.0.0.12:9090");
    file.services[0].backends.pop();
    file.services.push(dns());
    world.host().file = Ok(file);

    let reloaded = world.ask(Request::Reload).unwrap();

    assert_eq!(
        reloaded.changes,
        ["web/web-3: removed", "web/web-1: address 10.0.0.11:8080 -> 10.0.0.12:9090", "dns: added"]
    );
    assert_eq!(
        reloaded.warnings,
        [
            "[limits] differ from the pinned flow tables, which stay: 262144 IPv4 flows, 65536 IPv6 flows, 65536 \
             half-open; for other sizes `xlb detach` (which ends all flows) and start again",
            "[metrics] has changed: restart xlb to apply it (traffic keeps flowing)"
        ]
    );
    assert_eq!(world.serving(), ["web-2"], "a backend at another address must be probed first");
    assert_eq!(world.id("web/web-2"), kept);
}

#[test]
fn adding_a_health_check_keeps_backends_up() {
    let unchecked = Service { health: None, ..web(Protocol::Tcp) };
    let mut world = World::unprobed(vec![unchecked]);
    world.host().file = Ok(spec(vec![web(Protocol::Tcp)]));

    world.ask(Request::Reload).unwrap();

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    assert!(world.targets.borrow().iter().all(|target| target.known == Some(Health::Up)));
}

#[test]
fn the_overlay_survives_a_reload() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.set("web/web-1", AdminState::Drain);

    world.ask(Request::Reload).unwrap();

    assert_eq!(world.serving(), ["web-2", "web-3"]);
    assert_eq!(world.status().overlay, ["web/web-1: drain"]);
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

#[test]
fn an_added_backend_is_probed_and_then_serves_after_the_others() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let body = NewBackend { address: socket("10.0.0.14:8080"), weight: 100, backup: false };

    let answer = world.ask(add(name("web/web-0"), body));

    assert_eq!(answer.unwrap().health, view::Health::Unknown);
    assert!(world.targets.borrow().iter().any(|target| target.backend == name("web/web-0")));
    assert!(world.hops.borrow().contains(&path("10.0.0.14".parse().unwrap())));

    world.absorb(Event::Hops(hops(world.spec())));
    world.probed("web/web-0", Health::Up);

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3", "web-0"]);
}

#[test]
fn an_address_removed_and_added_again_serves_without_another_netlink_report() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let body = NewBackend { address: socket("10.0.0.12:8080"), weight: 100, backup: false };

    world.ask(remove(name("web/web-2"))).unwrap();
    world.ask(add(name("web/again"), body)).unwrap();
    world.probed("web/again", Health::Up);

    assert_eq!(world.serving(), ["web-1", "web-3", "again"]);
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

#[test]
fn missing_objects_are_not_found() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let (dns, web_9) = (Some("dns".into()), name("web/web-9"));
    let no_service = world.ask(|reply| Request::Backends { service: dns, reply }).unwrap_err();
    let no_backend = world.ask(patch("web/web-9", AdminState::Drain)).unwrap_err();
    let no_target = world.ask(|reply| Request::Probe { backend: web_9, reply }).unwrap_err();

    for problem in [no_service, no_backend, no_target] {
        assert_eq!(problem.kind, ProblemKind::NotFound);
    }
}

#[test]
fn flows_are_listed_by_service_backend_and_network_up_to_a_limit() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let ids = ["web/web-1", "web/web-2"].map(|it| world.id(it).unwrap());
    world.add_flows(ids[0], 4);
    world.add_flows(ids[1], 3);
    world.add_flows(9_999, 2);
    let all = FlowQuery::default();

    let count = |world: &mut World, query| world.list(query).unwrap().len();

    assert_eq!(count(&mut world, all.clone()), 7, "flows of no backend are not listed");
    assert_eq!(count(&mut world, FlowQuery { backend: Some("web/web-2".into()), ..all.clone() }), 3);
    assert_eq!(count(&mut world, FlowQuery { client: Some("198.51.100.0/31".into()), ..all.clone() }), 4);
    assert_eq!(count(&mut world, FlowQuery { client: Some("198.51.100.2".into()), ..all.clone() }), 2);
    assert_eq!(count(&mut world, FlowQuery { limit: Some(5), ..all.clone() }), 5);
    let nonsense = FlowQuery { client: Some("everywhere".into()), ..all.clone() };
    assert_eq!(world.list(nonsense).unwrap_err().kind, ProblemKind::Invalid);
    let stranger = FlowQuery { service: Some("dns".into()), ..all };
    assert_eq!(world.list(stranger).unwrap_err().kind, ProblemKind::NotFound);
}

#[test]
fn a_change_is_applied_during_a_walk_over_the_flows() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let id = world.id("web/web-1").unwrap();
    world.add_flows(id, 1_000);
    let query = FlowQuery::default();
    let mut answer = world.send(|reply| Request::Flows { query, reply });
    world.turn();

    world.probed("web/web-2", Health::Down);

    assert_eq!(world.serving(), ["web-1", "web-3"]);
    assert!(answer.try_recv().is_err(), "the walk is not finished");

    world.settle();
    assert_eq!(answer.try_recv().unwrap().unwrap().len(), 1_000);
}

#[test]
fn routing_changes_take_effect_at_most_once_a_second() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.wait(2_000);
    let before = world.maps().maps.hop_generation;

    for _ in 0..10 {
        world.absorb(Event::RoutingChanged);
    }
    assert_eq!(world.maps().maps.hop_generation, before + 1);

    world.absorb(Event::RoutingChanged);
    assert_eq!(world.maps().maps.hop_generation, before + 1);

    world.wait(1_000);
    assert_eq!(world.maps().maps.hop_generation, before + 2);
}

#[tokio::test(start_paused = true)]
async fn the_loop_answers_repairs_and_stops() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let (events, mut inbox) = mpsc::channel(8);
    let (stop, stopped) = oneshot::channel::<()>();
    let (reply, answer) = Reply::channel();
    world.maps().fail_after = Some(0);

    let down = probed(&world.controller.state, "web/web-1", Health::Down);

    let script = async {
        events.send(Event::Probed(down)).await.unwrap();
        events.send(Event::Request(Request::Status(reply))).await.unwrap();
        assert!(answer.await.unwrap().is_ok());
        tokio::time::sleep(Duration::from_secs(15)).await;
        stop.send(()).unwrap();
    };
    let stopping = async { drop(stopped.await) };
    let (ending, ()) = tokio::join!(run(&mut world.controller, &mut inbox, stopping), script);

    assert!(matches!(ending, Ending::Stopped));
    assert_eq!(world.serving(), ["web-2", "web-3"]);
    assert!(world.maps().observed >= 3, "read at start, after the failure, and every ten seconds");
}

#[tokio::test(start_paused = true)]
async fn detaching_ends_the_loop_and_answers_afterwards() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let (events, mut inbox) = mpsc::channel(8);
    let (reply, mut answer) = Reply::channel();
    events.send(Event::Request(Request::Detach(reply))).await.unwrap();

    let ending = run(&mut world.controller, &mut inbox, std::future::pending()).await;

    assert!(answer.try_recv().is_err());
    let Ending::Detach(reply) = ending else { panic!("expected a detach request") };
    reply.send(Ok(()));
    assert_eq!(answer.await, Ok(Ok(())));
}
