//! Flows whose backends peers compute.

use lb_common::flow::State;
use prost::Message as _;

use super::{
    super::{changes::Changes, computed::Computed},
    world::{World, computing, flow},
    *,
};

/// A key, and a definition of the service.
const KEY: u64 = 5;
const OLD: u64 = 1;
const NEW: u64 = 2;

/// All nodes compute. The first one is active.
fn world(nodes: usize) -> World {
    let mut world = World::new(nodes);
    for node in 0..nodes {
        define(&mut world, node, &computing(node == 0, OLD, KEY));
    }
    world
}

fn define(world: &mut World, node: usize, view: &Arc<View>) {
    world.nodes[node].exchange.set_view(Arc::clone(view), world.now);
}

/// A flow to the computed backend, and one to the other.
fn computed(client: u16) -> SharedFlow {
    let (one, other) = both(client);
    if computing(true, OLD, KEY).is_as_computed(&one) { one } else { other }
}

fn exception(client: u16) -> SharedFlow {
    let (one, other) = both(client);
    if computing(true, OLD, KEY).is_as_computed(&one) { other } else { one }
}

fn both(client: u16) -> (SharedFlow, SharedFlow) {
    (flow(client), SharedFlow { backend: "10.1.0.3:8080".parse().unwrap(), ..flow(client) })
}

/// 300 flows that are computed, and then 3 that are not.
fn open_many(world: &mut World) -> Vec<FlowId> {
    let flows = (1000..1300).map(computed).chain((1300..1303).map(exception));
    flows.map(|flow| world.open(0, &flow)).collect()
}

fn told(world: &mut World, node: usize) -> (u64, u64, u64) {
    let peer = &world.status(node).peers[0];
    (peer.sent, peer.computed, peer.resyncs)
}

/// A take-over by the other node, at this moment, breaks none of the first one's flows.
fn loses_nothing(world: &World) -> bool {
    let (here, there) = (world.flows(0), world.flows(1));
    let view = &world.nodes[1].exchange.view;
    let is_there =
        |flow: &SharedFlow| there.iter().any(|it| it.client == flow.client && it.backend == flow.backend);
    here.iter().all(|flow| is_there(flow) || view.is_as_computed(flow))
}

#[test]
fn only_flows_that_are_not_as_computed_are_sent_and_so_are_their_endings() {
    let mut world = world(2);
    world.connect(0, 1);
    world.settle();

    let ids = open_many(&mut world);
    world.settle();
    assert_eq!(world.clients(1), [1300, 1301, 1302]);
    assert_eq!(told(&mut world, 0), (3, 300, 0));

    world.nodes[0].change(ids[0], CLOSED);
    world.nodes[0].change(ids[300], CLOSED);
    world.settle();
    assert_eq!(world.clients(1), [1301, 1302]);
    assert_eq!(told(&mut world, 0), (4, 301, 0));

    world.next_round();
    assert_eq!(world.clients(1), [1301, 1302]);
    assert_eq!(told(&mut world, 0), (6, 600, 0));
    assert!(loses_nothing(&world));
}

#[test]
fn the_first_round_waits_for_the_services_of_the_peer() {
    for (first, second) in [(0, 1), (1, 0)] {
        let mut world = world(2);
        open_many(&mut world);
        world.settle();

        world.subscribe(first, second);
        world.settle();
        assert!(world.clients(1).is_empty());
        world.subscribe(second, first);
        world.settle();

        assert_eq!(world.clients(1), [1300, 1301, 1302]);
        assert_eq!(told(&mut world, 0), (3, 300, 0));
        assert!(!world.status(0).is_learning && !world.status(1).is_learning);
    }
}

#[test]
fn a_peer_whose_services_do_not_come_gets_everything() {
    let mut world = world(2);
    open_many(&mut world);
    world.settle();
    world.subscribe(0, 1);
    world.settle();
    assert!(world.clients(1).is_empty());

    world.after(Duration::from_secs(1));
    world.settle();

    assert_eq!(world.clients(1).len(), 303);
}

#[test]
fn a_peer_whose_services_come_no_more_gets_everything() {
    let mut world = world(2);
    world.connect(0, 1);
    open_many(&mut world);
    world.settle();
    assert_eq!(world.clients(1).len(), 3);

    world.unsubscribe(1, 0);
    world.after(Duration::from_secs(1));
    world.settle();
    assert_eq!(world.clients(1).len(), 303);

    // It sends its services again.
    world.subscribe(1, 0);
    world.settle();
    world.open(0, &computed(2000));
    world.settle();
    assert!(!world.clients(1).contains(&2000));
}

#[test]
fn a_peer_that_computes_nothing_or_with_another_definition_or_key_gets_everything() {
    // As a version that does not know computations sees the service.
    let mut older = View::clone(&computing(false, OLD, KEY));
    older.digests[0].computation = 0;
    for there in [Arc::new(older), computing(false, NEW, KEY), computing(false, OLD, KEY + 1)] {
        let mut world = world(2);
        define(&mut world, 1, &there);
        world.connect(0, 1);
        let ids = open_many(&mut world);
        world.settle();
        assert_eq!(world.clients(1).len(), 303);

        world.nodes[0].change(ids[0], CLOSED);
        world.settle();
        assert_eq!(world.clients(1).len(), 302);
        assert_eq!(world.status(0).peers[0].computed, 0);
    }
}

#[test]
fn a_node_that_computes_nothing_sends_everything_to_one_that_does() {
    let mut world = world(2);
    let mut older = View::clone(&computing(true, OLD, KEY));
    older.digests[0].computation = 0;
    define(&mut world, 0, &Arc::new(older));
    world.connect(0, 1);
    open_many(&mut world);
    world.settle();

    assert_eq!(world.clients(1).len(), 303);
}

#[test]
fn a_definition_that_changes_on_one_node_and_then_on_the_other_loses_no_flow() {
    for (first, second) in [(0, 1), (1, 0)] {
        let mut world = world(2);
        world.connect(0, 1);
        open_many(&mut world);
        world.settle();
        assert_eq!(world.clients(1).len(), 3);

        define(&mut world, first, &computing(first == 0, NEW, KEY));
        world.settle();
        assert_eq!(world.clients(1).len(), 303);

        define(&mut world, second, &computing(second == 0, NEW, KEY));
        for _ in 0..3 {
            world.settle();
            assert!(loses_nothing(&world));
            world.next_round();
        }
        // The other table has the other backend for each flow.
        assert_eq!(world.clients(1).len(), 300);
        assert_eq!(world.status(0).peers[0].resyncs, 0);
    }
}

#[test]
fn definitions_that_change_on_both_nodes_while_their_messages_are_on_the_way_lose_no_flow() {
    let mut world = world(2);
    world.connect(0, 1);
    open_many(&mut world);
    world.settle();

    (0..2).for_each(|node| define(&mut world, node, &computing(node == 0, NEW, KEY)));
    world.settle();

    assert!(loses_nothing(&world));
    assert_eq!(world.clients(1).len(), 300);
}

#[test]
fn a_standby_forgets_copies_that_it_can_compute_and_a_node_that_serves_keeps_them() {
    for is_active in [false, true] {
        let mut world = world(2);
        define(&mut world, 1, &computing(is_active, NEW, KEY));
        world.connect(0, 1);
        open_many(&mut world);
        world.settle();
        assert_eq!(world.status(1).peers[0].held, 303);

        define(&mut world, 1, &computing(is_active, OLD, KEY));
        world.settle();
        world.next_round();

        let held = world.status(1).peers[0].held;
        assert_eq!((world.clients(1).len(), held), (if is_active { 303 } else { 3 }, 3));
        assert!(loses_nothing(&world));
    }
}

#[test]
fn the_next_flow_of_the_port_of_an_exception_does_not_find_its_record() {
    let mut world = world(2);
    world.connect(0, 1);
    world.settle();
    let id = world.open(0, &exception(1000));
    world.settle();
    let copy = world.find(1, 1000);

    world.nodes[0].change(id, CLOSED);
    world.settle();

    assert_eq!(world.nodes[1].state(copy), State::EMPTY);
}

#[test]
fn each_peer_gets_what_it_does_not_compute() {
    let mut world = world(3);
    define(&mut world, 2, &computing(false, NEW, KEY));
    world.connect_all();
    world.settle();
    let ids = open_many(&mut world);
    world.settle();
    assert_eq!([1, 2].map(|node| world.clients(node).len()), [3, 303]);

    // A packet of a copy comes to another node: it tells the one that does not compute the flow.
    world.after(Duration::from_secs(10));
    world.packet(2, 1000);
    world.next_round();
    assert_eq!([0, 1, 2].map(|node| world.status(node).peers[1].held), [1, 1, 0]);

    world.nodes[0].change(ids[1], CLOSED);
    world.settle();
    assert_eq!(world.clients(2).len(), 302);
}

#[test]
fn a_flow_that_an_operator_removes_is_removed_where_it_is_computed_too() {
    let mut world = world(2);
    define(&mut world, 1, &computing(true, OLD, KEY));
    world.connect(0, 1);
    world.settle();
    // Its packets have come to both nodes.
    let here = world.open(0, &computed(1000));
    let there = world.open(1, &computed(1000));
    world.settle();

    world.nodes[0].change(here, State::ENDED);
    world.settle();

    assert_eq!(world.nodes[1].state(there), State::ENDED);
}

#[test]
fn one_exception_among_a_hundred_flows_costs_at_most_a_fiftieth_of_the_bytes() {
    let view = computing(true, OLD, KEY);
    let mut changes = Changes::default();
    let flows = (1000..11_000).map(|port| if port % 100 == 0 { exception(port) } else { computed(port) });
    changes.flows = flows.collect();
    changes.ended = changes.flows.iter().map(|flow| (*flow, crate::datapath::Ending::Closed)).collect();
    let mut peer = Computed { listens: view.listens.iter().copied().collect(), count: 0 };
    let bytes = |frames: Vec<Arc<Frame>>| frames.iter().map(|frame| frame.encoded_len()).sum::<usize>();

    let all = bytes(changes.frames(&mut 0));
    let exceptions = bytes(peer.frames(&changes, &view, &mut 0));

    assert!(exceptions * 50 <= all, "{exceptions} of {all}");
    assert_eq!(peer.count, 2 * 9_900);
}
