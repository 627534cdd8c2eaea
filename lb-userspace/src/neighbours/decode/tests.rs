//! Messages as sent by the kernel, including misleading ones.

use std::net::Ipv4Addr;

use netlink_packet_route::{neighbour::NeighbourMessage, route::RouteCacheInfo};

use super::*;

const BYTES: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BACKEND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11));

#[test]
fn neighbour_states_are_decoded() {
    let mac = Mac::new(BYTES);
    let cases = [
        (NeighbourState::Reachable, Neighbour::Fresh(mac)),
        (NeighbourState::Delay, Neighbour::Fresh(mac)),
        (NeighbourState::Probe, Neighbour::Fresh(mac)),
        (NeighbourState::Stale, Neighbour::Stale(mac)),
        (NeighbourState::Permanent, Neighbour::Fixed(mac)),
        (NeighbourState::Noarp, Neighbour::Fixed(mac)),
        (NeighbourState::Incomplete, Neighbour::Incomplete),
        (NeighbourState::None, Neighbour::Incomplete),
        (NeighbourState::Failed, Neighbour::Failed),
    ];
    for (state, expected) in cases {
        let message = neighbour_message(state, &BYTES);

        assert_eq!(neighbour(&message), Some(((InterfaceIndex(2), BACKEND), expected)), "{state}");
    }
}

#[test]
fn other_link_addresses_are_ignored() {
    for bytes in [&[0; 6][..], &[], &[1; 4], &[1; 20]] {
        let message = neighbour_message(NeighbourState::Noarp, bytes);

        assert_eq!(
            neighbour(&message),
            Some(((InterfaceIndex(2), BACKEND), Neighbour::Incomplete)),
            "{bytes:?}"
        );
    }
}

#[test]
fn bridge_ports_and_forwarding_tables_are_ignored() {
    let mut port_left = LinkMessage::default();
    port_left.header.interface_family = AddressFamily::Bridge;
    port_left.header.index = 2;
    port_left.attributes = vec![LinkAttribute::IfName("eth0".to_owned()), LinkAttribute::Mtu(1500)];
    let mut learned = NeighbourMessage::default();
    learned.header.family = AddressFamily::Bridge;
    learned.attributes = vec![NeighbourAttribute::LinkLayerAddress(BYTES.to_vec())];

    assert_eq!(fact(&RouteNetlinkMessage::DelLink(port_left)), None);
    assert_eq!(fact(&RouteNetlinkMessage::NewNeighbour(learned)), None);
}

#[test]
fn a_link_is_up_when_it_is_switched_on_and_has_a_carrier() {
    let cases =
        [(LinkFlags::Up, false), (LinkFlags::LowerUp, false), (LinkFlags::Up | LinkFlags::LowerUp, true)];
    for (flags, is_up) in cases {
        let mut message = LinkMessage::default();
        message.header.index = 2;
        message.header.flags = flags;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(BYTES.to_vec()),
        ];

        let expected = Link { name: "eth0".to_owned(), mac: Some(Mac::new(BYTES)), mtu: 1500, is_up };
        assert_eq!(
            fact(&RouteNetlinkMessage::NewLink(message)),
            Some(Fact::Link(InterfaceIndex(2), Some(expected)))
        );
    }
}

#[test]
fn routes_are_read_as_ip_route_get_prints_them() {
    let gateway = RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 1)));
    let via6 = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
    let via = |next_hop: &str| Route::Via {
        interface: InterfaceIndex(2),
        next_hop: next_hop.parse().unwrap(),
        mtu: None,
    };
    let cases = [
        (RouteType::Unicast, vec![RouteAttribute::Oif(2)], via("10.0.0.11")),
        (RouteType::Unicast, vec![RouteAttribute::Oif(2), gateway.clone()], via("10.0.0.1")),
        (RouteType::Unicast, vec![RouteAttribute::Oif(2), via6], via("fe80::1")),
        (RouteType::Local, vec![RouteAttribute::Oif(1)], Route::Local),
        (RouteType::Unreachable, vec![RouteAttribute::Oif(1)], Route::Missing),
        (RouteType::Broadcast, vec![RouteAttribute::Oif(2)], Route::Missing),
        (RouteType::BlackHole, vec![], Route::Missing),
    ];
    for (kind, attributes, expected) in cases {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.attributes = attributes;

        assert_eq!(route(BACKEND, &message), expected, "{kind:?}");
    }
}

#[test]
fn a_configured_mtu_counts_and_a_learned_one_does_not() {
    let v6: IpAddr = "2001:db8::11".parse().unwrap();
    let cases = [
        (BACKEND, 0, RouteFlags::Cloned, Some(1400)),
        (BACKEND, 599, RouteFlags::Cloned, None),
        (v6, 0, RouteFlags::empty(), Some(1400)),
        // A route from a router advertisement expires as well.
        (v6, 1799, RouteFlags::empty(), Some(1400)),
        (v6, 599, RouteFlags::Cloned, None),
    ];
    for (address, expires, flags, expected) in cases {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.header.flags = flags;
        message.attributes = vec![
            RouteAttribute::Oif(2),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]),
            RouteAttribute::CacheInfo(expiring(expires)),
        ];

        let expected = Route::Via { interface: InterfaceIndex(2), next_hop: address, mtu: expected };
        assert_eq!(route(address, &message), expected, "{address} {expires}");
    }
}

#[test]
fn a_cloned_route_is_not_a_change_of_routes() {
    let mut message = RouteMessage::default();
    assert_eq!(fact(&RouteNetlinkMessage::NewRoute(message.clone())), Some(Fact::Routes));
    assert_eq!(fact(&RouteNetlinkMessage::DelRoute(message.clone())), Some(Fact::Routes));

    message.header.flags = RouteFlags::Cloned;

    assert_eq!(fact(&RouteNetlinkMessage::NewRoute(message)), None);
}

fn neighbour_message(state: NeighbourState, mac: &[u8]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = 2;
    message.header.state = state;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 11))),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

/// The type cannot be built from its fields, so it is parsed, as from the kernel.
fn expiring(expires: u32) -> RouteCacheInfo {
    let words = [0, 0, expires, 0, 0, 0, 0, 0];
    let bytes: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    RouteCacheInfo::parse(&bytes[..]).unwrap()
}
