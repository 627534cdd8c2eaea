//! Next hops: neighbours and routes of clients and backends, MTUs and hop limits.

use lb_common::{flow::State, reason::Reason};

use crate::{
    case::{Case, Drops, Opens, Reaches, Returns, ReturnsVia},
    dialogue::{Dialogue, Message},
    packet::{HOPS, SENDER},
    world::{
        Family, Kind, WEB_1, WEB_2, World,
        network::{self, BACK, FRONT},
    },
};

const ANOTHER_MAC: [u8; 6] = [2, 0xff, 0, 0, 0, 1];
const NO_MAC: [u8; 6] = [0; 6];

/// Every kind, and a route that leads out of an interface without xlb.
pub fn rows() -> Vec<Case> {
    Kind::all()
        .into_iter()
        .flat_map(|kind| {
            let clients = clients(kind).into_iter().chain(unknown_clients(kind));
            clients.chain(backends(kind)).chain(sizes(kind)).chain(hops(kind))
        })
        .chain([beside_an_unattached_interface()])
        .collect()
}

fn clients(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let nowhere = one.client(kind.ip.address("192.88.99.1", "2001:db8:fff::1"));
    let (known, far, gateway) = (one.client.ip(), one.client(kind.ip.far_client()), kind.ip.client(1));
    let world = World::new(kind);
    vec![
        Case::new(format!("{kind}: a client without a route is not served"), world.clone())
            .step(nowhere.first(), Drops(Reason::NoClientRoute))
            .records(0),
        Case::new(format!("{kind}: a client behind a gateway is reached through it"), world.clone())
            .establish(one.client(kind.ip.far_client()), WEB_1),
        Case::new(
            format!("{kind}: a client's next hop is looked up again only in another generation"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .change(move |world| world.learn(known, Some(ANOTHER_MAC)))
        .step(one.later_answer(WEB_1), ReturnsVia(network::mac_of(known)))
        .change(|world| world.hop_generation += 1)
        .step(one.later_answer(WEB_1), Returns)
        .step(one.later_answer(WEB_1), Returns),
        Case::new(
            format!("{kind}: replies still go to a client whose neighbour entry is gone"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .asks_nothing()
        .change(move |world| {
            world.learn(known, None);
            world.hop_generation += 1;
        })
        .step(one.later_answer(WEB_1), ReturnsVia(network::mac_of(known)))
        .asks(known, FRONT, network::mac_of(known))
        .step(one.later_answer(WEB_1), ReturnsVia(network::mac_of(known)))
        .asks_nothing()
        .change(move |world| {
            world.learn(known, Some(ANOTHER_MAC));
            world.hop_generation += 1;
        })
        .step(one.later_answer(WEB_1), Returns),
        Case::new(format!("{kind}: replies still go through a gateway whose neighbour entry is gone"), world)
            .establish(far, WEB_1)
            .change(move |world| {
                world.learn(gateway, None);
                world.hop_generation += 1;
            })
            .step(far.later_answer(WEB_1), ReturnsVia(network::mac_of(gateway)))
            .asks(gateway, FRONT, network::mac_of(gateway)),
    ]
}

/// Clients without a neighbour entry.
fn unknown_clients(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind).client(kind.ip.client(99));
    let far = one.client(kind.ip.far_client());
    let (client, gateway) = (one.client.ip(), kind.ip.client(1));
    let from = |mac: [u8; 6]| one.first().with(|packet| packet.from_mac = mac);
    let refused = |name: &str| Case::new(format!("{kind}: {name}"), World::new(kind));
    vec![
        Case::new(
            format!("{kind}: a client on the link without a neighbour entry is answered at its frame's MAC"),
            World::new(kind),
        )
        .step(one.first(), Opens(WEB_1))
        .asks(client, FRONT, SENDER)
        .step(one.answer(WEB_1), ReturnsVia(SENDER))
        .asks_nothing()
        .step(one.later(), Reaches(WEB_1))
        .flow(one, &[State::ESTABLISHED])
        .change(move |world| {
            world.learn(client, Some(ANOTHER_MAC));
            world.hop_generation += 1;
        })
        .step(one.later_answer(WEB_1), Returns),
        refused("a client behind a gateway is served once the gateway has a neighbour entry")
            .change(move |world| world.learn(gateway, None))
            .step(far.first(), Drops(Reason::NoClientNeighbour))
            .asks(gateway, FRONT, NO_MAC)
            .records(0)
            .change(move |world| world.learn(gateway, Some(ANOTHER_MAC)))
            .establish(far, WEB_1),
        refused("a client without a neighbour entry is not answered on a link that it is not on")
            .step(one.first().arriving_by(BACK), Drops(Reason::NoClientNeighbour))
            .asks(client, FRONT, NO_MAC)
            .records(0),
        refused("a client without a neighbour entry is not answered at a group MAC address, or none")
            .step(from([0x33, 0x33, 0, 0, 0, 1]), Drops(Reason::NoClientNeighbour))
            .step(from([0xff; 6]), Drops(Reason::NoClientNeighbour))
            .step(from(NO_MAC), Drops(Reason::NoClientNeighbour))
            .asks(client, FRONT, NO_MAC)
            .records(0),
        refused("a different source MAC changes nothing for a client with a neighbour entry")
            .step(Dialogue::new(kind).first().with(|packet| packet.from_mac = ANOTHER_MAC), Opens(WEB_1))
            .step(Dialogue::new(kind).answer(WEB_1), Returns),
    ]
}

/// Rows with a daemon that reads no neighbour requests, which only the host engine can simulate.
pub fn without_daemon() -> Vec<Case> {
    let rows = Kind::all().into_iter().map(|kind| {
        let one = Dialogue::new(kind).client(kind.ip.client(99));
        let client = one.client.ip();
        let world = World::new(kind).with(|world| world.daemon_listens = false);
        Case::new(
            format!("{kind}: without a daemon, the next hop of a client without neighbour entry is looked up again"),
            world,
        )
        .step(one.first(), Opens(WEB_1))
        .step(one.answer(WEB_1), ReturnsVia(SENDER))
        .step(one.later(), Reaches(WEB_1))
        .change(move |world| world.learn(client, Some(ANOTHER_MAC)))
        .step(one.later_answer(WEB_1), Returns)
        .change(move |world| world.learn(client, Some(SENDER)))
        .step(one.later_answer(WEB_1), ReturnsVia(ANOTHER_MAC))
    });
    rows.collect()
}

fn backends(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let two = one.port(40_001);
    let world = World::new(kind);
    vec![
        Case::new(format!("{kind}: a backend without neighbour entry loses its turn"), world.clone())
            .change(|world| world.find_mut(WEB_1).interface = 0)
            .step(one.first(), Drops(Reason::NoBackendNeighbour))
            .records(0)
            .step(two.first(), Opens(WEB_2)),
        Case::new(
            format!("{kind}: requests are dropped while their backend has no neighbour entry"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .change(|world| world.find_mut(WEB_1).interface = 0)
        .step(one.later(), Drops(Reason::NoBackendNeighbour))
        .change(|world| world.find_mut(WEB_1).interface = BACK)
        .step(one.later(), Reaches(WEB_1))
        .flow(one, &[State::ESTABLISHED]),
        Case::new(format!("{kind}: a backend's Ethernet address changes under its flows"), world.clone())
            .establish(one, WEB_1)
            .change(|world| world.find_mut(WEB_1).mac = ANOTHER_MAC)
            .step(one.later(), Reaches(WEB_1))
            .step(one.later_answer(WEB_1), Returns),
        Case::new(format!("{kind}: a backend moves to another interface under its flows"), world)
            .establish(one, WEB_1)
            .change(|world| world.find_mut(WEB_1).interface = FRONT)
            .step(one.later(), Reaches(WEB_1))
            .step(one.later_answer(WEB_1), Returns),
    ]
}

/// Bytes of IP, and TCP or UDP headers.
fn headers(kind: Kind) -> usize {
    let ip = match kind.ip {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    let l4 = match kind.protocol {
        lb_common::net::Protocol::Tcp => 20,
        lb_common::net::Protocol::Udp => 8,
    };
    ip + l4
}

fn sizes(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let of = |message: Message, bytes: usize| {
        message.with(|packet| packet.payload_mut().resize(bytes - headers(kind), b'x'))
    };
    let established =
        |name: &str| Case::new(format!("{kind}: {name}"), World::new(kind)).establish(one, WEB_1);
    vec![
        Case::new(
            format!("{kind}: a first packet longer than the MTU is too_big and opens no flow"),
            World::new(kind),
        )
        .step(of(one.first(), 1501), Drops(Reason::TooBig))
        .records(0)
        .step(one.first(), Opens(WEB_2)),
        established("a packet as long as the MTU passes, both ways")
            .step(of(one.later(), 1500), Reaches(WEB_1))
            .step(of(one.later_answer(WEB_1), 1500), Returns),
        established("a packet longer than the MTU is too_big, both ways")
            .step(of(one.later(), 1501), Drops(Reason::TooBig))
            .step(of(one.later_answer(WEB_1), 1501), Drops(Reason::TooBig))
            .step(of(one.later(), 1500), Reaches(WEB_1)),
        established("Ethernet's padding is not a part of the packet")
            .step(one.later().with(|packet| packet.padding = 6), Reaches(WEB_1))
            .step(of(one.later(), 1500).with(|packet| packet.padding = 4), Reaches(WEB_1)),
    ]
}

fn hops(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let with_hops = |message: Message, hops: u8| message.with(|packet| packet.hops = hops);
    let established =
        |name: &str| Case::new(format!("{kind}: {name}"), World::new(kind)).establish(one, WEB_1);
    let mut live = established("a packet that has hops left goes on with one less, both ways");
    for hops in [2, 3, HOPS, 128, 255] {
        live = live
            .step(with_hops(one.later(), hops), Reaches(WEB_1))
            .step(with_hops(one.later_answer(WEB_1), hops), Returns);
    }
    let mut dead = established("a packet that has no hop left is ttl_expired, both ways");
    for hops in [0, 1] {
        dead = dead
            .step(with_hops(one.later(), hops), Drops(Reason::TtlExpired))
            .step(with_hops(one.later_answer(WEB_1), hops), Drops(Reason::TtlExpired));
    }
    let mut first = Case::new(
        format!("{kind}: a first packet without hops left is ttl_expired, opens no flow and takes no turn"),
        World::new(kind),
    );
    for hops in [0, 1] {
        first = first
            .step(with_hops(one.later(), hops), Drops(Reason::TtlExpired))
            .step(with_hops(one.first(), hops), Drops(Reason::TtlExpired))
            .records(0);
    }
    vec![live, dead, first.step(with_hops(one.first(), 2), Opens(WEB_1))]
}

fn beside_an_unattached_interface() -> Case {
    let kind = Kind::tcp()[0];
    let beside = Dialogue::new(kind).client(kind.ip.address("172.16.0.7", "::"));
    Case::new(
        format!("{kind}: a client behind an interface that is not attached has no route"),
        World::new(kind),
    )
    .step(beside.first(), Drops(Reason::NoClientRoute))
}
