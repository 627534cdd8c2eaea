//! Flow counts in answers are recent enough, and all requests share a round over the tables.

use super::*;
use crate::{
    controller::{state::offers::IN_FLIGHT, walk::COUNT_MAX_AGE},
    view,
};

#[test]
fn a_backend_that_is_changed_is_shown_with_flows_counted_after_the_change() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.ask(Request::FlowCount).unwrap();
    let id = world.id("web/web-1").unwrap();
    world.add_flows(id, 3);
    world.pass(1);

    let drained = world.ask(patch("web/web-1", AdminState::Drain)).unwrap().unwrap();

    assert_eq!((drained.flows, drained.drained), (3, false));
}

#[test]
fn a_backend_is_drained_once_a_count_begun_after_a_grace_period_finds_no_flow() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut world = World::all_up(vec![web(protocol)]);
        let id = world.id("web/web-1").unwrap();
        assert!(!look(&mut world).drained, "it can get a flow at any time");
        let grace_ms = IN_FLIGHT.as_millis() as u64;

        world.set("web/web-1", AdminState::Drain);
        world.wait(grace_ms - 1);
        assert!(!look(&mut world).drained, "a packet in flight may still read the former slots");

        // A CPU in the middle of it adds a flow by the old table.
        world.add_flows(id, 1);
        world.wait(COUNT_MAX_AGE.as_millis() as u64 + 1);
        let late = look(&mut world);
        assert_eq!((late.flows, late.drained), (1, false));

        world.maps().records.clear();
        world.wait(COUNT_MAX_AGE.as_millis() as u64 + 1);
        assert!(look(&mut world).drained);

        world.set("web/web-1", AdminState::Ready);
        assert!(!look(&mut world).drained);
    }
}

#[test]
fn a_count_begun_before_the_drain_is_not_used_however_late_it_ends() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let id = world.id("web/web-1").unwrap();
    world.maps().records.resize(40, None);
    world.wait(5_000);
    let _counting = world.send(Request::Metrics);
    world.pass(1);
    world.pass(1);
    world.add_flows(id, 1);
    world.maps().records.swap(0, 40); // where the count has passed already

    let drained = world.ask(patch("web/web-1", AdminState::Drain)).unwrap().unwrap();

    assert_eq!((drained.flows, drained.drained), (1, false));
}

#[test]
fn no_backend_is_drained_for_a_grace_period_after_a_restart() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.set("web/web-1", AdminState::Drain);
    world.wait(10_000);
    assert!(look(&mut world).drained);

    world.restart();
    assert!(!look(&mut world).drained, "the former daemon may have started the drain a moment ago");

    world.wait(IN_FLIGHT.as_millis() as u64 + COUNT_MAX_AGE.as_millis() as u64);
    assert!(look(&mut world).drained);
}

#[test]
fn removals_during_a_sweep_share_its_rounds() {
    let mut world = World::all_up(vec![web(Protocol::Udp)]);
    let ids = ["web/web-1", "web/web-2", "web/web-3"].map(|it| world.id(it).unwrap());
    world.maps().records.resize(200, None);
    let chunks = 100;
    for id in ids {
        world.add_flows(id, 10);
    }
    world.settle();
    world.maps().swept = 0;

    for backend in ["web/web-1", "web/web-2", "web/web-3"] {
        world.probed(backend, Health::Down); // one chunk between removals
    }
    world.settle();

    assert_eq!(world.maps().held(), []);
    let swept = world.maps().swept;
    assert!(swept <= chunks + 20, "{swept} chunks were swept for three removals");
}

#[test]
fn a_scrape_takes_one_round_during_sweeps() {
    let mut world = World::all_up(vec![web(Protocol::Udp)]);
    world.maps().records.resize(200, None);
    world.wait(5_000);
    world.maps().visited = 0;
    for backend in ["web/web-1", "web/web-2"] {
        world.probed(backend, Health::Down);
    }

    let mut answer = world.send(Request::Metrics);
    let mut turns = 0;
    while answer.try_recv().is_err() {
        world.turn();
        turns += 1;
        if turns % 10 == 0 {
            world.probed("web/web-3", if turns % 20 == 0 { Health::Up } else { Health::Down });
        }
    }

    assert_eq!(world.maps().visited, 100);
    assert!(turns <= 101, "{turns} turns");
}

#[test]
fn requests_share_counts_and_none_gets_one_that_is_too_old() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let id = world.id("web/web-1").unwrap();
    world.add_flows(id, 200);
    world.wait(5_000);
    world.maps().visited = 0;

    // A round takes 100 turns of 50 ms: longer than a count may be old.
    let answers: Vec<_> = (0..100)
        .map(|_| {
            let answer = world.send(Request::FlowCount);
            world.pass(50);
            answer
        })
        .collect();
    for _ in 0..200 {
        world.pass(50);
    }

    for mut answer in answers {
        assert_eq!(answer.try_recv().unwrap().unwrap().established, 200);
    }
    assert!(world.maps().visited <= 300, "{} chunks for 100 requests", world.maps().visited);
}

fn look(world: &mut World) -> view::Backend {
    let backend = name("web/web-1");
    world.ask(|reply| Request::Backend { backend, reply }).unwrap()
}
