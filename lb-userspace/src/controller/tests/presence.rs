//! A node without the listen addresses is standby, which is no fault.

use super::*;
use crate::{metrics::render, view::Presence};

#[test]
fn a_node_without_the_listen_addresses_is_standby_and_not_at_fault() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);

    has(&mut world, &["10.0.0.9"]);

    let status = world.status();
    assert_eq!(status.node.state, Presence::Standby);
    assert_eq!(status.node.missing, ["192.0.2.10 (web): ip address add 192.0.2.10/32 dev eth0"]);
    assert_eq!(status.warnings, [""; 0], "the source is with the node that is active");
    assert_eq!(active(&mut world), (0, 0));

    has(&mut world, &["10.0.0.1", "192.0.2.10"]);

    let status = world.status();
    assert_eq!((status.node.state, status.node.missing.len()), (Presence::Active, 0));
    assert_eq!(active(&mut world), (1, 1));
}

#[test]
fn an_active_service_without_its_source_is_a_warning_that_names_the_interface_to_the_backends() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let mut seen = hops(world.spec());
    let to_backend =
        HopState::Unresolved { next_hop: "10.0.0.11".parse().unwrap(), interface: "eth1".into() };
    seen.insert(path("10.0.0.11".parse().unwrap()), to_backend);
    world.absorb(Event::Hops(seen));

    has(&mut world, &["192.0.2.10"]);

    let warnings = world.status().warnings;
    let expected = "service web uses the source 10.0.0.1, which is not an address of this host: ip address add 10.0.0.1/32 dev eth1";
    assert!(warnings.iter().any(|warning| warning == expected), "{warnings:?}");
}

#[test]
fn a_service_with_some_of_its_addresses_is_a_warning_and_two_services_on_two_nodes_are_none() {
    let both =
        Service { listen: vec![socket("192.0.2.10:80"), socket("192.0.2.11:80")], ..web(Protocol::Tcp) };
    let mut world = World::all_up(vec![both, dns()]);

    has(&mut world, &["10.0.0.1", "192.0.2.10"]);

    let status = world.status();
    let states: Vec<_> = status.services.iter().map(|service| service.state).collect();
    assert_eq!((status.node.state, states), (Presence::Partial, vec![Presence::Partial, Presence::Standby]));
    assert_eq!(
        status.warnings,
        [
            "service web listens on 192.0.2.11, which is not an address of this host, unlike others of the service: \
             ip address add 192.0.2.11/32 dev eth0"
        ]
    );

    has(&mut world, &["10.0.0.1", "192.0.2.10", "192.0.2.11"]);

    let status = world.status();
    assert_eq!((status.node.state, status.warnings), (Presence::Partial, vec![]));
}

fn has(world: &mut World, addresses: &[&str]) {
    world.host().addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    world.absorb(Event::LinksChanged);
}

/// Of the node, and of `web`.
fn active(world: &mut World) -> (u8, u8) {
    let text = render(&world.ask(Request::Metrics).unwrap()).unwrap();
    let value = |sample: &str| text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
    (value("xlb_active ").unwrap(), value("xlb_service_active{service=\"web\"} ").unwrap())
}
