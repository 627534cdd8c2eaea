//! Which backends get flows.

use super::*;
use crate::{named::Named as _, spec::Scheduler};

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
    world.controller.state.set_room(Room { services: 1, backends: 500, slots: 1024 });

    for _ in 0..100 {
        world.set("web/b0", AdminState::Drain);
        world.set("web/b0", AdminState::Ready);
    }

    assert_eq!(world.serving().len(), 500);
    assert!(world.maps().grace_periods > 0);
}

/// The wait for a grace period can fail too.
#[test]
fn a_change_that_found_no_room_succeeds_when_the_next_grace_period_ends() {
    let backends = (1..=4).map(|n| backend(&format!("b{n}"), &format!("10.0.0.{n}:80"))).collect();
    let mut world = World::unprobed(vec![Service { backends, ..web(Protocol::Tcp) }]);
    world.controller.state.set_room(Room { services: 1, backends: 4, slots: 32 });
    world.maps().refuses_grace_periods = true;
    for name in ["web/b1", "web/b2", "web/b3", "web/b4"] {
        world.probed(name, Health::Up);
    }
    for health in [Health::Down, Health::Up, Health::Down] {
        world.probed("web/b1", health);
    }
    assert_eq!(world.serving().len(), 4, "there was no room for the last change");

    world.wait(1100);

    assert_eq!(world.serving().len(), 3);
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

/// A packet that looked up the service just before its removal still finds the pool.
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

/// A virtual CPU can be paused between two reads for any length of time.
#[test]
fn nothing_is_used_again_while_a_packet_may_be_reading_it() {
    let mut world = World::all_up(vec![web(Protocol::Tcp), dns()]);
    world.wait(1100);
    let left = |world: &World| {
        let maps = &world.controller.datapath.maps;
        (maps.pools.len(), maps.slots.len())
    };
    assert_eq!(left(&world), (2, 2));
    world.host().file = Ok(spec(vec![web(Protocol::Tcp)]));
    world.is_a_packet_stalled = true;

    world.ask(Request::Reload).unwrap();
    world.set("web/web-1", AdminState::Drain);
    world.wait(60_000);

    assert_eq!(left(&world), (2, 3), "the pool of dns, and the former slots of both");

    world.is_a_packet_stalled = false;
    world.turn();
    assert_eq!(left(&world), (1, 1));
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
    for scheduler in Scheduler::ALL {
        let mut pair = Service { scheduler: *scheduler, ..web(Protocol::Tcp) };
        pair.backends.truncate(2);
        pair.backends[1].backup = true;
        let mut world = World::all_up(vec![pair]);
        assert_eq!(world.offered(), ["web-1"], "{scheduler:?}");

        world.probed("web/web-1", Health::Down);
        assert_eq!(world.offered(), ["web-2"], "{scheduler:?}");

        world.probed("web/web-1", Health::Up);
        assert_eq!(world.offered(), ["web-1"], "{scheduler:?}");

        world.set("web/web-1", AdminState::Drain);
        assert_eq!(world.offered(), ["web-2"], "{scheduler:?}");
    }
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
