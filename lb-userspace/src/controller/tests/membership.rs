//! A node of a group: when it answers packets of no flow, and what the exchange of flows learns of the services.

use std::sync::Arc;

use lb_common::quiet::Quiet;

use super::*;
use crate::{
    group::status::{GroupStatus, PeerStatus},
    track_file::UNFIT,
};

#[test]
fn a_node_alone_answers_packets_of_no_flow_and_shares_nothing() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    has(&mut world, &["10.0.0.9"]);

    assert!(world.maps().maps.quiet == Quiet::No && world.host().shared.is_none());
}

#[test]
fn a_standby_is_quiet_and_for_five_seconds_after_it_gets_the_addresses() {
    let mut world = in_group(false);
    has(&mut world, &["10.0.0.9"]);
    assert_eq!(world.maps().maps.quiet, Quiet::Always);
    world.wait(60_000);
    assert_eq!(world.maps().maps.quiet, Quiet::Always);

    has(&mut world, &["10.0.0.1", "192.0.2.10"]);
    world.wait(4_900);
    assert_eq!(world.maps().maps.quiet, Quiet::Always, "a peer may still be active");
    world.wait(100);
    assert_eq!(world.maps().maps.quiet, Quiet::No);
}

#[test]
fn a_node_that_starts_is_quiet_until_it_has_the_flows_of_its_peers() {
    let mut world = in_group(true);
    has(&mut world, &["10.0.0.1", "192.0.2.10"]);
    world.wait(60_000);
    assert_eq!(world.maps().maps.quiet, Quiet::Always);

    world.host().group = Some(status(false));
    world.absorb(Event::GroupChanged);
    assert_eq!(world.maps().maps.quiet, Quiet::No);
}

#[test]
fn a_node_is_quiet_while_a_peer_tells_its_flows_and_at_first_while_a_peer_is_out_of_reach() {
    let mut world = in_group(false);
    has(&mut world, &["10.0.0.1", "192.0.2.10"]);
    world.wait(60_000);
    let mut quiet = |[is_connected, is_heard, is_complete]: [bool; 3]| {
        let peer = PeerStatus { is_connected, is_heard, is_complete, ..PeerStatus::default() };
        world.host().group = Some(GroupStatus { peers: vec![peer], ..GroupStatus::default() }.into());
        world.absorb(Event::GroupChanged);
        world.maps().maps.quiet
    };

    assert_eq!(quiet([true, true, true]), Quiet::No);
    assert_eq!(quiet([true, false, true]), Quiet::AtFirst);
    assert_eq!(quiet([false, false, true]), Quiet::AtFirst);
    assert_eq!(quiet([true, true, false]), Quiet::Always);
    assert_eq!(quiet([true, true, true]), Quiet::No);
}

#[test]
fn a_standby_that_starts_must_not_become_active_before_it_has_the_flows_of_its_peers() {
    let mut world = in_group(true);
    has(&mut world, &["10.0.0.1", "192.0.2.10"]);
    assert_ne!(world.host().tracked.last(), Some(&UNFIT), "a move would break its own flows");

    has(&mut world, &["10.0.0.9"]);
    assert_eq!(world.host().tracked.last(), Some(&UNFIT));
    world.host().group = Some(status(false));
    world.absorb(Event::GroupChanged);
    world.wait(2_000);
    assert_eq!(world.host().tracked.last(), Some(&0));
}

#[test]
fn the_exchange_learns_which_backends_may_have_flows() {
    let mut world = in_group(false);
    let ids = |world: &mut World| -> BTreeSet<_> {
        let view = world.host().shared.clone().unwrap();
        let service = &view.services[&(socket("192.0.2.10:80"), Protocol::Tcp)];
        let addresses = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"].map(socket);
        addresses.into_iter().filter(|address| service.backends.contains_key(address)).collect()
    };
    assert_eq!(ids(&mut world).len(), 3);
    let former = world.host().shared.clone().unwrap().digests;

    world.ask(patch("web/web-1", AdminState::Maint)).unwrap();
    world.wait(100);
    assert!(!ids(&mut world).contains(&socket("10.0.0.11:8080")));
    assert_eq!(world.host().shared.clone().unwrap().digests, former, "a command is no part of the file");
}

#[test]
fn flows_from_sources_of_peers_are_taken_and_none_begin_with_them() {
    let sources = ["10.0.0.1", "10.0.0.2"].map(|it| it.parse::<IpAddr>().unwrap());
    let mut world = in_group(false);
    let taken = |world: &mut World| {
        world.host().shared.clone().unwrap().services[&(socket("192.0.2.10:80"), Protocol::Tcp)]
            .sources
            .clone()
    };
    assert_eq!(taken(&mut world), sources[..1]);

    let mut service = web(Protocol::Tcp);
    service.peer_sources = vec![sources[1]];
    world.host().file = Ok(spec(vec![service]));
    world.ask(Request::Reload).unwrap();
    world.wait(100);

    assert_eq!(taken(&mut world), sources);
    let in_maps: Vec<_> = world.maps().maps.sources.clone().into_values().collect();
    assert_eq!(in_maps, [sources[..1].to_vec()]);
}

fn in_group(is_learning: bool) -> World {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.host().group = Some(status(is_learning));
    world.wait(1);
    world
}

fn status(is_learning: bool) -> Arc<GroupStatus> {
    Arc::new(GroupStatus { is_learning, ..GroupStatus::default() })
}

fn has(world: &mut World, addresses: &[&str]) {
    world.host().addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    world.absorb(Event::LinksChanged);
}
