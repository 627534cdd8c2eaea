//! The track file: which node keepalived should prefer.

use super::{availability::down, *};
use crate::track_file::UNFIT;

#[test]
fn each_service_that_is_not_ready_makes_this_node_less_preferred() {
    let mut world = World::unprobed(vec![web(Protocol::Tcp), dns()]);
    assert_eq!(world.host().tracked, [-2], "nothing was checked yet");

    world.probed("web/web-1", Health::Up);
    world.probed("dns/dns-1", Health::Up);
    world.probed("dns/dns-2", Health::Up);
    assert_eq!(world.host().tracked, [-2, -1, 0]);

    down(&mut world, &["web/web-1"]);
    assert_eq!(world.host().tracked, [-2, -1, 0, -1]);
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
    assert_eq!(world.host().tracked.last(), Some(&0));

    world.host().is_full = false;
    world.wait(1_000);

    assert_eq!(world.host().tracked.last(), Some(&-1));
}
