mod computed;
mod world;

use lb_common::flow::State;

use self::world::{Node, World, flow, view};
use super::*;
use crate::{
    datapath::{Reading, SharedFlow},
    group::{
        session::HEARD,
        wire::{Flow, Frame, ServiceDigest},
    },
};

const CLOSED: State = State(State::ESTABLISHED.0 | State::FIN_CLIENT | State::FIN_BACKEND);

#[test]
fn peers_learn_of_a_flow_when_it_is_proven_and_when_it_ends() {
    let mut world = World::new(3);
    world.connect_all();
    world.settle();

    let first = world.open(0, &flow(1000));
    world.open(0, &flow(1001));
    world.settle();
    assert_eq!([world.clients(1), world.clients(2)], [[1000, 1001], [1000, 1001]]);
    let peers = world.status(1).peers;
    assert_eq!((peers[0].held, peers[0].received, peers[1].held, peers[1].received), (2, 2, 0, 0));

    world.nodes[0].change(first, CLOSED);
    world.settle();
    assert_eq!([world.clients(0), world.clients(1), world.clients(2)], [[1001], [1001], [1001]]);
    assert_eq!((world.status(1).peers[0].held, world.status(1).peers[0].ended), (1, 1));
}

#[test]
fn a_flow_that_an_operator_removes_is_removed_everywhere_and_a_closed_one_is_closed() {
    for state in [State::ENDED, CLOSED] {
        let mut world = World::new(2);
        world.connect(0, 1);
        let id = world.open(0, &flow(1000));
        world.settle();
        let copy = world.find(1, 1000);

        world.nodes[0].change(id, state);
        world.settle();

        assert_eq!(world.nodes[1].state(copy), state);
    }
}

#[test]
fn a_node_that_joins_gets_all_flows_and_then_is_complete() {
    let mut world = World::new(2);
    (0..3000).for_each(|port| {
        world.open(0, &flow(1000 + port));
    });
    world.settle();
    assert!(world.status(1).is_learning);

    world.connect(0, 1);
    world.settle();

    assert_eq!(world.clients(1).len(), 3000);
    let status = world.status(1);
    assert!(!status.is_learning && status.peers[0].is_complete);
    assert_eq!((status.peers[0].held, status.peers[0].lag), (3000, Duration::ZERO));
    assert_eq!(world.status(0).peers[0].resyncs, 0);
}

#[test]
fn what_ended_while_nodes_were_apart_ends_after_they_meet() {
    let mut world = World::new(2);
    world.connect(0, 1);
    let gone = world.open(0, &flow(1000));
    world.open(0, &flow(1001));
    world.settle();
    world.disconnect(0, 1);

    world.nodes[0].change(gone, CLOSED);
    world.open(0, &flow(1002));
    world.settle();
    assert_eq!(world.clients(1), [1000, 1001]);

    world.connect(0, 1);
    world.settle();
    assert_eq!(world.clients(1), [1001, 1002]);
}

#[test]
fn a_node_that_takes_over_keeps_the_flows_and_tells_the_former_one_when_it_returns() {
    // A node may learn of either of its two connections first.
    for (first, second) in [(0, 1), (1, 0)] {
        let mut world = World::new(2);
        world.connect(0, 1);
        for port in [1000, 1001, 1002] {
            world.open(0, &flow(port));
        }
        world.settle();
        world.disconnect(0, 1);

        world.after(Duration::from_secs(3));
        world.packet(1, 1000);
        world.nodes[1].exchange.set_view(view(true), world.now);
        world.open(1, &flow(2000));
        let closed = world.find(1, 1001);
        world.nodes[1].change(closed, CLOSED);
        world.settle();

        // The former node comes back with empty tables.
        world.nodes[0] = Node::new(0, 2, 2, false, world.now);
        world.connect(first, second);
        world.settle();
        world.next_round();

        assert_eq!([world.clients(0), world.clients(1)], [[1000, 1002, 2000], [1000, 1002, 2000]]);
        assert_eq!((world.status(0).peers[0].held, world.status(1).peers[0].held), (3, 0));
    }
}

#[test]
fn a_restart_of_the_former_node_ends_no_flow_of_the_one_that_took_over() {
    let mut world = World::new(2);
    world.connect(0, 1);
    world.open(0, &flow(1000));
    world.settle();
    world.nodes[0].exchange.set_view(view(false), world.now);
    world.nodes[1].exchange.set_view(view(true), world.now);
    world.disconnect(0, 1);

    world.nodes[0].restart(0, 2, false, world.now);
    world.connect(0, 1);
    world.settle();
    world.next_round();

    assert_eq!([world.clients(0), world.clients(1)], [[1000], [1000]]);
}

#[test]
fn a_flow_whose_packets_reach_two_nodes_stays_on_both() {
    let mut world = World::new(2);
    world.nodes[1].exchange.set_view(view(true), world.now);
    world.connect(0, 1);
    world.open(0, &flow(1000));
    world.settle();
    world.after(Duration::from_secs(10));
    (0..2).for_each(|node| world.packet(node, 1000));

    for _ in 0..3 {
        world.next_round();
        assert_eq!([world.clients(0), world.clients(1)], [[1000], [1000]]);
    }
}

#[test]
fn a_flow_that_changes_its_node_stays_on_a_third_one() {
    let mut world = World::new(3);
    world.connect_all();
    world.open(0, &flow(1000));
    world.settle();
    world.after(Duration::from_secs(10));
    world.packet(1, 1000);

    for _ in 0..3 {
        world.next_round();
        assert_eq!([0, 1, 2].map(|node| world.clients(node)), [[1000], [1000], [1000]]);
    }
    assert_eq!(world.status(2).peers.iter().map(|peer| peer.held).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_node_that_took_over_does_not_take_back_what_has_ended_since() {
    let mut world = World::new(2);
    world.connect(0, 1);
    world.open(0, &flow(1000));
    world.settle();
    world.after(Duration::from_secs(60));
    world.disconnect(0, 1);
    world.nodes[1].exchange.set_view(view(true), world.now);
    let closed = world.find(1, 1000);
    world.nodes[1].change(closed, CLOSED);
    world.settle();
    world.after(Duration::from_secs(600));
    world.expire(1);

    world.nodes[0].exchange.set_view(view(false), world.now);
    world.connect(0, 1);
    world.settle();

    assert!(world.clients(1).is_empty());
    assert_eq!(world.status(1).peers[0].skipped.get("ended_here"), Some(&1));
}

#[test]
fn a_flow_that_was_in_the_way_of_another_is_gone_after_the_round() {
    let mut world = World::new(2);
    world.connect(0, 1);
    let gone = world.open(0, &flow(1000));
    world.settle();
    world.disconnect(0, 1);
    world.nodes[0].change(gone, CLOSED);
    world.settle();
    world.expire(0);
    // Another client gets its port.
    let next = SharedFlow { client: "10.9.0.2:1000".parse().unwrap(), ..flow(1000) };
    world.open(0, &next);

    world.connect(0, 1);
    world.settle();

    assert_eq!(world.flows(1), [next]);
}

#[test]
fn a_flow_belongs_to_the_node_that_saw_its_last_packet() {
    let mut world = World::new(2);
    world.connect(0, 1);
    let here = world.open(0, &flow(1000));
    world.settle();
    world.after(Duration::from_secs(10));
    world.packet(1, 1000);
    let at = world.now.ticks;

    world.next_round();

    assert_eq!((world.status(0).peers[0].held, world.status(1).peers[0].held), (1, 0));
    let Reading::Shared(_, seen) = world.nodes[0].exchange.tables.read(here, at) else {
        panic!("not shared")
    };
    // Idle times are sent in milliseconds.
    assert!(seen.0.abs_diff(at.0) <= 1, "{seen:?} instead of {at:?}");
    // Its former owner does not end it.
    world.next_round();
    world.next_round();
    assert_eq!([world.clients(0), world.clients(1)], [[1000], [1000]]);
}

#[test]
fn what_the_controller_of_a_standby_ends_goes_on_where_it_is_active() {
    let mut world = World::new(2);
    world.connect(0, 1);
    world.open(0, &flow(1000));
    world.settle();

    let copy = world.find(1, 1000);
    world.nodes[1].lose_backend(copy);
    world.settle();

    assert_eq!([world.clients(0), world.clients(1)], [vec![1000], vec![]]);
}

#[test]
fn a_peer_that_takes_nothing_gets_everything_later_and_delays_no_other() {
    let mut world = World::new(3);
    world.connect(0, 1);
    world.connect(0, 2);
    world.settle();

    for port in 0..200 {
        world.open(0, &flow(1000 + port));
        world.nodes[0].exchange.tick(world.now);
        let stuck = world.nodes[0].outboxes.remove(&1).unwrap();
        world.deliver(0);
        world.nodes[0].outboxes.insert(1, stuck);
    }
    assert_eq!(world.clients(2).len(), 200);
    assert_eq!(world.status(0).peers[0].resyncs, 1);
    assert!(world.clients(1).is_empty());

    world.settle();
    assert_eq!(world.clients(1).len(), 200);
    assert_eq!((world.status(0).peers[0].resyncs, world.status(0).peers[1].resyncs), (1, 0));
}

#[test]
fn a_node_skips_and_counts_what_its_services_do_not_have() {
    let mut world = World::new(2);
    world.connect(0, 1);
    world.settle();
    let other = |listen: &str, backend: &str, source: &str| SharedFlow {
        listen: listen.parse().unwrap(),
        backend: backend.parse().unwrap(),
        source: source.parse().unwrap(),
        ..flow(1000)
    };
    let flows = [
        other("192.0.2.10:81", "10.1.0.1:8080", "10.1.0.254:1"),
        other("192.0.2.10:80", "10.1.0.2:8080", "10.1.0.254:2"),
        other("192.0.2.10:80", "10.1.0.1:8080", "10.1.0.99:3"),
    ];
    let mut bad: Vec<Flow> = flows.iter().map(Flow::from).collect();
    bad.push(Flow { protocol: 99, ..(&flow(1000)).into() });
    let frame = Frame { flows: bad, sequence: 1, ..Frame::default() };
    let peer = PeerNumber(0);
    let connection = world.nodes[1].exchange.peers[0].subscription.connection().unwrap();

    world.nodes[1].exchange.absorb(Input::Received { peer, connection, frame }, world.now);

    assert!(world.clients(1).is_empty());
    let skipped = &world.status(1).peers[0].skipped;
    let reasons = ["unknown_service", "unknown_backend", "other_source", "malformed"];
    assert_eq!(reasons.map(|it| skipped.get(it).copied()), [Some(1); 4]);
}

#[test]
fn a_restarted_standby_forgets_what_ended_meanwhile_once_all_peers_have_told_their_flows() {
    let mut world = World::new(2);
    world.connect(0, 1);
    let gone = world.open(0, &flow(1000));
    world.open(0, &flow(1001));
    world.settle();
    world.disconnect(0, 1);
    world.nodes[0].change(gone, CLOSED);
    world.settle();

    world.nodes[1].restart(1, 2, false, world.now);
    world.settle();
    assert_eq!(world.clients(1), [1000, 1001]);
    world.connect(0, 1);
    world.settle();

    assert_eq!(world.clients(1), [1001]);
    assert!(!world.status(1).is_learning);
}

#[test]
fn a_restarted_active_node_keeps_its_flows() {
    let mut world = World::new(2);
    world.connect(0, 1);
    world.open(0, &flow(1000));
    world.settle();
    world.disconnect(0, 1);

    world.nodes[0].restart(0, 2, true, world.now);
    world.connect(0, 1);
    world.settle();

    assert_eq!([world.clients(0), world.clients(1)], [[1000], [1000]]);
    assert_eq!((world.status(0).peers[0].held, world.status(1).peers[0].held), (0, 1));
}

#[test]
fn a_node_does_not_wait_for_ever_for_peers_that_cannot_be_reached_or_say_nothing() {
    let mut world = World::new(2);
    world.settle();
    assert!(world.status(1).is_learning);
    world.after(LEARNING);
    world.settle();
    assert!(!world.status(1).is_learning);

    let mut world = World::new(2);
    let hello = world.nodes[0].exchange.hello();
    let input = Input::Connected { peer: PeerNumber(0), connection: 1, hello };
    world.nodes[1].exchange.absorb(input, world.now);
    world.after(LEARNING);
    world.settle();
    assert!(world.status(1).is_learning);
    world.after(LEARNING_MAX);
    world.settle();
    assert!(!world.status(1).is_learning);
}

#[test]
fn a_peer_that_says_nothing_is_missed_before_the_connection_ends() {
    let mut world = World::new(2);
    world.connect(0, 1);
    world.settle();
    assert!(!world.status(1).misses_a_peer());

    world.after(HEARD);
    assert!(!world.status(1).misses_a_peer());
    world.after(Duration::from_millis(1));
    assert!(world.status(1).misses_a_peer() && world.status(1).peers[0].is_connected);

    let frame = Frame::default();
    world.nodes[1].exchange.absorb(Input::Received { peer: PeerNumber(0), connection: 1, frame }, world.now);
    assert!(!world.status(1).misses_a_peer());
}

#[test]
fn a_peer_that_was_behind_learns_of_services_that_have_changed_meanwhile() {
    let mut world = World::new(2);
    world.connect(0, 1);
    world.settle();
    for port in 0..200 {
        world.open(0, &flow(1000 + port));
        world.nodes[0].exchange.tick(world.now);
    }
    assert_eq!(world.status(0).peers[0].resyncs, 1);

    let other = View {
        digests: vec![ServiceDigest { name: "web".to_owned(), digest: 2, computation: 0 }],
        ..View::clone(&view(true))
    };
    world.nodes[0].exchange.set_view(Arc::new(other), world.now);
    world.settle();

    assert_eq!(world.status(1).peers[0].differs, Some(vec!["web".to_owned()]));
}

#[test]
fn nodes_say_which_services_differ() {
    let mut world = World::new(2);
    world.connect(0, 1);
    world.settle();
    assert_eq!(world.status(0).peers[0].differs, Some(vec![]));
    assert_eq!(world.status(0).peers[0].same_hash_key, Some(true));
    // Both have the settings of one node.
    assert_eq!(world.status(0).peers[0].source_ports_overlap, Some(true));

    let mut other = View::clone(&view(false));
    other.digests = vec![
        ServiceDigest { name: "dns".to_owned(), digest: 3, computation: 0 },
        ServiceDigest { name: "web".to_owned(), digest: 2, computation: 0 },
    ];
    world.nodes[1].exchange.set_view(Arc::new(other), world.now);
    world.settle();

    let differs = ["web", "dns (only there)"].map(str::to_owned).to_vec();
    assert_eq!(world.status(0).peers[0].differs, Some(differs));
    let differs = ["dns (only here)", "web"].map(str::to_owned).to_vec();
    assert_eq!(world.status(1).peers[0].differs, Some(differs));
}
