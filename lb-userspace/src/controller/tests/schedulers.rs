//! Schedulers, their key, and the room for their slots.

use lb_common::pool::Picker;

use super::*;
use crate::{hash_key::HashKey, spec::Scheduler};

#[test]
fn another_scheduler_or_weight_changes_the_slots_of_the_pool_and_no_id() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let ids = ["web/web-1", "web/web-2", "web/web-3"].map(|name| world.id(name).unwrap());
    let [a, b, c] = ids;
    reload(&mut world, |web| {
        web.scheduler = Scheduler::WeightedRoundRobin;
        (web.backends[0].weight, web.backends[1].weight, web.backends[2].weight) = (500, 100, 100);
    })
    .unwrap();

    assert_eq!(world.maps().in_force()[&PoolNumber(0)], [a, a, b, a, c, a, a]);

    world.set("web/web-2", AdminState::Drain);
    assert_eq!(world.maps().in_force()[&PoolNumber(0)], [a, a, a, c, a, a]);

    reload(&mut world, |web| web.scheduler = Scheduler::SourceHash).unwrap();
    let maps = &world.maps().maps;
    assert_eq!(maps.pools[&PoolNumber(0)].picker(), Some(Picker::SourceHash));
    assert_eq!(maps.offered(PoolNumber(0)).len(), 65_537);
    assert_eq!(ids, ["web/web-1", "web/web-2", "web/web-3"].map(|name| world.id(name).unwrap()));
}

#[test]
fn schedulers_that_compare_loads_know_the_weights_and_limits_of_backends() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let [a, b, c] = ["web/web-1", "web/web-2", "web/web-3"].map(|name| world.id(name).unwrap());
    let edit = |scheduler| {
        move |web: &mut Service| {
            web.scheduler = scheduler;
            web.backends[0].weight = 200;
            web.backends[1].max_flows = 7;
        }
    };

    let reloaded = reload(&mut world, edit(Scheduler::LeastConnections)).unwrap();

    assert!(reloaded.changes.contains(&"web/web-2: max_flows 0 -> 7".to_owned()), "{:?}", reloaded.changes);
    let maps = world.maps();
    assert_eq!(maps.maps.pools[&PoolNumber(0)].picker(), Some(Picker::LeastOfAll));
    assert_eq!(maps.in_force()[&PoolNumber(0)], [a, b, c]);
    let entries = maps.maps.backends.values().map(|it| (it.id, it.weight, it.max_flows));
    assert_eq!(entries.collect::<Vec<_>>(), [(a, 2000, 0), (b, 1000, 7), (c, 1000, 0)]);

    reload(&mut world, edit(Scheduler::RandomTwo)).unwrap();

    let maps = world.maps();
    assert_eq!(maps.maps.pools[&PoolNumber(0)].picker(), Some(Picker::LeastOfTwo));
    assert_eq!(maps.in_force()[&PoolNumber(0)], [a, b, c, a]);
}

#[test]
fn another_key_is_written_and_builds_other_tables() {
    let mut world = World::all_up(vec![Service { scheduler: Scheduler::Maglev, ..web(Protocol::Tcp) }]);
    let before = world.maps().in_force();
    let key = HashKey::new([0x9216_d5d9_8979_fb1b; 6]);
    let file = world.spec().clone().with_hash_key(key);
    world.host().file = Ok(file);

    let reloaded = world.ask(Request::Reload).unwrap();

    assert_eq!(reloaded.changes.len(), 1);
    assert!(reloaded.changes[0].starts_with("the hash key changed"), "{:?}", reloaded.changes);
    assert_eq!(world.maps().maps.hash_key, key);
    assert_ne!(world.maps().in_force(), before);
}

#[test]
fn schedules_that_may_need_more_slots_than_there_are_are_refused_before_anything_changes() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.controller.state.set_room(Room { services: 1, backends: 16, slots: 32 });
    let before = world.maps().maps.clone();

    let refused = reload(&mut world, |web| web.scheduler = Scheduler::Maglev).unwrap_err();

    assert_eq!(refused.kind, ProblemKind::Conflict);
    let expected = "too many slots, from service `web` on: the schedules need 65552, and the pinned maps hold 32 (`slots` \
                    in [limits] when they were created): raise it, run `xlb detach` (which ends all flows) and start xlb \
                    again; nothing was changed";
    assert_eq!(refused.detail, expected);
    assert_eq!(world.maps().maps, before);

    reload(&mut world, |web| {
        web.scheduler = Scheduler::WeightedRoundRobin;
        web.backends.iter_mut().for_each(|backend| backend.weight = 10);
    })
    .unwrap();
    let raised =
        world.ask(change(name("web/web-1"), BackendPatch { weight: Some(13), ..BackendPatch::default() }));
    assert_eq!(raised.unwrap_err().kind, ProblemKind::Conflict, "a cycle of 33 slots");
}

fn reload(world: &mut World, edit: impl FnOnce(&mut Service)) -> Result<view::Reloaded, Problem> {
    let mut file = world.spec().clone();
    let mut service = Service::clone(&file.services[0]);
    edit(&mut service);
    file.services[0] = service.into();
    world.host().file = Ok(file);
    world.ask(Request::Reload)
}
