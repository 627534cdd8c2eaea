//! The track file: which node keepalived should prefer.

use super::{availability::down, *};
use crate::{
    group::status::{GroupStatus, PeerStatus},
    track_file::UNFIT,
};

#[test]
fn each_service_that_is_not_ready_makes_this_node_less_preferred() {
    let mut world = World::unprobed(vec![web(Protocol::Tcp), dns()]);
    assert_eq!(world.host().tracked, [-2], "nothing was checked yet");

    world.probed("web/web-1", Health::Up);
    world.probed("dns/dns-1", Health::Up);
    world.probed("dns/dns-2", Health::Up);
    assert_eq!(world.host().tracked, [-2, -1, 0]);

    down(&mut world, &["web/web-1"]);
    assert_eq!(world.host().tracked, [-2, -1, 0], "the other node may see it a moment later");
    world.wait(1_250);
    assert_eq!(world.host().tracked, [-2, -1, 0, -1]);
    world.probed("web/web-1", Health::Up);
    assert_eq!(world.host().tracked, [-2, -1, 0, -1, 0]);
}

#[test]
fn a_loss_counts_at_once_while_the_peers_have_the_flows_of_this_node() {
    let peer = PeerStatus { is_subscribed: true, is_complete: true, ..PeerStatus::default() };
    for (peer, expected) in [(peer.clone(), -1), (PeerStatus { is_subscribed: false, ..peer }, 0)] {
        let mut world = World::all_up(vec![web(Protocol::Tcp)]);
        world.host().group = Some(GroupStatus { peers: vec![peer], ..GroupStatus::default() }.into());

        down(&mut world, &["web/web-1", "web/web-2", "web/web-3"]);

        assert_eq!(world.host().tracked.last(), Some(&expected));
    }
}

#[test]
fn a_standby_counts_a_loss_at_once_and_a_return_later() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.host().addresses = ["10.0.0.9".parse().unwrap()].into();
    world.absorb(Event::LinksChanged);
    world.wait(1_250);
    world.host().tracked.clear();

    down(&mut world, &["web/web-1", "web/web-2", "web/web-3"]);
    assert_eq!(world.host().tracked, [-1]);
    world.probed("web/web-1", Health::Up);
    assert_eq!(world.host().tracked, [-1]);

    world.wait(1_250);
    assert_eq!(world.host().tracked, [-1, 0]);
}

#[test]
fn a_service_that_a_reload_adds_does_not_count_until_it_is_known() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let mut file = world.host().file.clone().unwrap();
    file.services.push(dns().into());
    world.host().file = Ok(file);

    world.ask(Request::Reload).unwrap();
    world.wait(2_000);

    assert_eq!(world.host().tracked, [-1, 0], "the other node has not read the file yet");
}

#[test]
fn a_node_without_the_program_on_its_interfaces_must_not_be_active() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.host().is_detached = true;

    world.absorb(Event::LinksChanged);
    assert_eq!(world.host().tracked.last(), Some(&UNFIT));

    world.host().is_detached = false;
    world.absorb(Event::LinksChanged);
    assert_eq!(world.host().tracked.last(), Some(&0));
}

#[test]
fn a_restart_with_pinned_maps_is_ready_at_once() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);

    world.restart();
    world.turn();

    assert_eq!(world.host().tracked, [0], "no address moves");
}

#[test]
fn a_track_file_that_cannot_be_written_is_retried() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.host().is_full = true;
    down(&mut world, &["web/web-1", "web/web-2", "web/web-3"]);
    world.wait(1_250);
    assert_eq!(world.host().tracked.last(), Some(&0));
    assert!(world.status().warnings.iter().any(|it| it == "no space left on the disk"));

    world.host().is_full = false;
    world.wait(1_000);

    assert_eq!(world.host().tracked.last(), Some(&-1));
    assert_eq!(world.status().warnings, [""; 0]);
}

#[test]
fn all_are_known_when_a_reload_removes_the_service_that_never_was() {
    let mut world = World::unprobed(vec![web(Protocol::Tcp), dns()]);
    world.probed("web/web-1", Health::Up);
    let mut file = world.host().file.clone().unwrap();
    let dns = file.services.pop().unwrap();
    world.host().file = Ok(file.clone());
    world.ask(Request::Reload).unwrap();
    assert_eq!(world.host().tracked, [-2, -1, 0]);

    file.services.push(dns);
    world.host().file = Ok(file);
    world.ask(Request::Reload).unwrap();

    assert_eq!(world.host().tracked, [-2, -1, 0]);
}

#[test]
fn a_drained_node_must_not_be_active_until_the_operator_ends_it() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);

    let node = world.ask(|reply| Request::DrainNode { is_drained: true, reply }).unwrap();

    assert!(node.drained);
    assert_eq!(world.host().tracked.last(), Some(&UNFIT));
    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"], "what still arrives is served");
    world.restart();
    world.turn();
    assert_eq!(world.host().tracked, [UNFIT], "it outlives the daemon");

    let node = world.ask(|reply| Request::DrainNode { is_drained: false, reply }).unwrap();

    assert!(!node.drained);
    assert_eq!(world.host().tracked.last(), Some(&0));
    world.restart();
    assert!(!world.status().node.drained);
}

#[test]
fn a_drain_that_cannot_be_saved_changes_nothing() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.host().is_full = true;

    let refused = world.ask(|reply| Request::DrainNode { is_drained: true, reply }).unwrap_err();

    assert_eq!(refused.kind, ProblemKind::Failed);
    assert!(!world.status().node.drained);
}

/// Its age tells a script whether the daemon lives.
#[test]
fn the_track_file_is_written_again_every_few_seconds() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let before = world.host().tracked.len();

    world.controller.mark_stale();
    world.turn();

    assert_eq!(world.host().tracked.len(), before + 1);
}
