//! The addresses of ready services, which are put on a device and taken off.

use super::{
    super::track::leave,
    availability::down,
    world::{Owner, placed},
    *,
};
use crate::{announced_addresses::Placed, metrics::render, spec::Announce, view::Presence};

/// After the start of the daemon.
const STARTED: u64 = 10_000;

#[test]
fn addresses_are_added_at_once_and_taken_off_after_a_hold() {
    let mut world = announcing(vec![web(Protocol::Tcp), dns()]);
    assert_eq!(announced(&mut world), [""; 0]);

    world.probed("web/web-1", Health::Up);
    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10"]);
    world.probed("dns/dns-1", Health::Up);
    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10", "192.0.2.53"]);

    world.wait(STARTED);
    down(&mut world, &["web/web-1"]);
    world.wait(999);
    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10", "192.0.2.53"]);
    world.wait(1);
    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.53"], "the other service needs the source");
}

#[test]
fn answers_of_backends_reach_this_node_before_packets_of_clients_do_and_after_them() {
    let listen = vec![socket("192.0.2.10:80"), socket("[2001:db8::10]:80")];
    let sources = ["10.0.0.1", "fd00::1"].map(|source| source.parse().unwrap()).into();
    let mut world = announcing(vec![Service { listen, sources, ..web(Protocol::Tcp) }]);

    world.probed("web/web-1", Health::Up);
    world.ask(|reply| Request::DrainNode { is_drained: true, reply }).unwrap();

    let (added, taken_off) = world.host().placements.split_at(4);
    assert_eq!(added, ["+10.0.0.1", "+fd00::1", "+192.0.2.10", "+2001:db8::10"]);
    assert_eq!(taken_off, ["-192.0.2.10", "-2001:db8::10", "-10.0.0.1", "-fd00::1"]);
}

#[test]
fn a_service_that_flaps_changes_nothing() {
    let mut world = announcing(vec![web(Protocol::Tcp)]);
    world.probed("web/web-1", Health::Up);
    world.wait(STARTED);

    for _ in 0..5 {
        down(&mut world, &["web/web-1"]);
        world.wait(900);
        world.probed("web/web-1", Health::Up);
        assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10"]);
    }
}

#[test]
fn a_restart_takes_nothing_off_until_health_checks_have_had_time() {
    let mut world = announcing(vec![web(Protocol::Tcp), dns()]);
    world.probed("web/web-1", Health::Up);
    world.probed("dns/dns-1", Health::Up);
    let mut file = world.host().file.clone().unwrap();
    file.services.pop();
    world.host().file = Ok(file);

    world.restart();
    world.wait(STARTED - 1);
    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10", "192.0.2.53"]);
    world.wait(1);

    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10"], "the service is not in the file any more");
}

#[test]
fn a_drained_node_and_one_without_the_program_announce_nothing() {
    let mut world = announcing(vec![web(Protocol::Tcp)]);
    world.probed("web/web-1", Health::Up);

    let node = world.ask(|reply| Request::DrainNode { is_drained: true, reply }).unwrap();
    assert!(node.drained);
    assert_eq!(announced(&mut world), [""; 0], "at once, even after a start");
    world.restart();
    world.turn();
    assert_eq!(announced(&mut world), [""; 0]);
    world.ask(|reply| Request::DrainNode { is_drained: false, reply }).unwrap();
    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10"]);

    world.host().is_detached = true;
    world.absorb(Event::LinksChanged);
    assert_eq!(announced(&mut world), [""; 0]);
    world.host().is_detached = false;
    world.absorb(Event::LinksChanged);
    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10"]);
}

#[test]
fn an_address_of_the_operator_counts_as_announced_and_stays() {
    let mut world = announcing(vec![web(Protocol::Tcp)]);
    let own = placed("192.0.2.10".parse().unwrap(), Owner::Operator);
    world.host().placed.insert(own.clone());
    world.probed("web/web-1", Health::Up);
    assert_eq!(world.status().node.announce.unwrap().announced.len(), 2);

    world.ask(|reply| Request::DrainNode { is_drained: true, reply }).unwrap();

    assert_eq!(world.host().placed, [own].into());
}

#[test]
fn what_others_take_off_is_added_again() {
    let mut world = announcing(vec![web(Protocol::Tcp)]);
    world.probed("web/web-1", Health::Up);

    world.host().placed.clear();
    world.absorb(Event::LinksChanged);

    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10"]);
}

#[test]
fn a_failure_is_a_warning_and_is_repeated() {
    let mut world = announcing(vec![web(Protocol::Tcp)]);
    world.host().is_read_only = true;
    world.probed("web/web-1", Health::Up);
    let warning = "cannot add 10.0.0.1 to lo: not permitted";
    assert_eq!(world.status().warnings, [warning]);

    world.host().is_read_only = false;
    world.wait(999);
    assert_eq!(announced(&mut world), [""; 0]);
    world.wait(1);

    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10"]);
    assert_eq!(world.status().warnings, [""; 0]);
}

#[test]
fn a_service_that_is_not_ready_lacks_its_addresses_and_that_is_no_fault() {
    let both =
        Service { listen: vec![socket("192.0.2.10:80"), socket("192.0.2.11:80")], ..web(Protocol::Tcp) };
    let mut world = announcing(vec![both, dns()]);
    world.host().addresses = ["10.0.0.9".parse().unwrap()].into();
    world.probed("dns/dns-1", Health::Up);
    world.absorb(Event::LinksChanged);

    let status = world.status();
    let announcement = status.node.announce.unwrap();

    assert_eq!(status.node.state, Presence::Partial);
    assert_eq!(status.warnings, [""; 0]);
    assert_eq!(
        status.node.missing,
        [
            "192.0.2.10 (web): withdrawn by xlb ([announce])",
            "192.0.2.11 (web): withdrawn by xlb ([announce])"
        ]
    );
    assert_eq!((announcement.device.as_str(), announcement.announced.len()), ("lo", 2));
    let text = render(&world.ask(Request::Metrics).unwrap()).unwrap();
    for line in ["xlb_announced{address=\"192.0.2.53\"} 1", "xlb_announced{address=\"192.0.2.11\"} 0"] {
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
}

#[test]
fn without_a_device_what_an_earlier_daemon_has_announced_is_taken_off() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let old = Placed { is_on_device: false, ..placed("192.0.2.10".parse().unwrap(), Owner::Xlb) };
    world.host().placed.insert(old);
    world.restart();

    world.wait(STARTED);

    assert_eq!(announced(&mut world), [""; 0]);
    assert_eq!(world.status().node.announce, None);
}

#[test]
fn another_device_in_the_file_needs_a_restart() {
    let mut world = announcing(vec![web(Protocol::Tcp)]);
    let mut file = world.host().file.clone().unwrap();
    file.announce = None;
    world.host().file = Ok(file);

    let reloaded = world.ask(Request::Reload).unwrap();

    assert_eq!(
        reloaded.warnings,
        ["[announce] has changed: restart xlb to apply it (traffic keeps flowing)"]
    );
    world.probed("web/web-1", Health::Up);
    assert_eq!(announced(&mut world), ["10.0.0.1", "192.0.2.10"]);
}

#[tokio::test(start_paused = true)]
async fn before_the_data_plane_is_removed_nothing_is_announced_and_routers_have_time_to_follow() {
    let mut world = announcing(vec![web(Protocol::Tcp)]);
    world.probed("web/web-1", Health::Up);
    let (_events, mut inbox) = mpsc::channel(1);
    let began = tokio::time::Instant::now();

    leave(&mut world.controller, &mut inbox).await;

    assert_eq!(announced(&mut world), [""; 0]);
    assert_eq!(began.elapsed(), Duration::from_millis(300));
}

/// Nothing was probed yet.
fn announcing(services: Vec<Service>) -> World {
    World::unprobed_of(Spec { announce: Some(Announce { device: "lo".into() }), ..spec(services) })
}

/// Sorted.
fn announced(world: &mut World) -> Vec<String> {
    world.host().placed.iter().map(|it| it.net.addr().to_string()).collect()
}
