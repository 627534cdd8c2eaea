//! Where packets leave: neighbours and routes of clients and backends, MTUs and hop limits.

use lb_common::{flow::State, reason::Reason};

use crate::{
    case::{Case, Drops, Opens, Reaches, Returns, ReturnsVia},
    dialogue::{Dialogue, Message},
    packet::HOPS,
    world::{Family, Kind, WEB_1, WEB_2, World, network},
};

const ANOTHER_MAC: [u8; 6] = [2, 0xff, 0, 0, 0, 1];

/// Every kind, and a route that leads out of an interface without xlb.
pub fn rows() -> Vec<Case> {
    Kind::all()
        .into_iter()
        .flat_map(|kind| clients(kind).into_iter().chain(backends(kind)).chain(sizes(kind)).chain(hops(kind)))
        .chain([beside_an_unattached_interface()])
        .collect()
}

fn clients(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let unknown = one.client(kind.ip.client(99));
    let nowhere = one.client(kind.ip.address("192.88.99.1", "2001:db8:fff::1"));
    let known = one.client.ip();
    let world = World::new(kind);
    vec![
        Case::new(
            format!("{kind}: a client without neighbour entry is served once it has one"),
            world.clone(),
        )
        .step(unknown.first(), Drops(Reason::NoClientNeighbour))
        .records(0)
        .change(move |world| world.learn(unknown.client.ip(), Some(ANOTHER_MAC)))
        .establish(unknown, WEB_1),
        Case::new(format!("{kind}: a client without route is not served"), world.clone())
            .step(nowhere.first(), Drops(Reason::NoClientRoute))
            .records(0),
        Case::new(format!("{kind}: a client behind a gateway is reached through it"), world.clone())
            .establish(one.client(kind.ip.far_client()), WEB_1),
        Case::new(
            format!("{kind}: a client's next hop is looked up again in another generation only"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .change(move |world| world.learn(known, Some(ANOTHER_MAC)))
        .step(one.later_answer(WEB_1), ReturnsVia(network::mac_of(known)))
        .change(|world| world.hop_generation += 1)
        .step(one.later_answer(WEB_1), Returns)
        .step(one.later_answer(WEB_1), Returns),
        Case::new(format!("{kind}: replies wait for a client whose neighbour entry is gone"), world)
            .establish(one, WEB_1)
            .change(move |world| {
                world.learn(known, None);
                world.hop_generation += 1;
            })
            .step(one.later_answer(WEB_1), Drops(Reason::NoClientNeighbour))
            .step(one.later(), Reaches(WEB_1))
            .change(move |world| world.learn(known, Some(ANOTHER_MAC)))
            .step(one.later_answer(WEB_1), Returns),
    ]
}

fn backends(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let two = one.port(40_001);
    let world = World::new(kind);
    vec![
        Case::new(format!("{kind}: a backend without neighbour entry costs its turn"), world.clone())
            .change(|world| world.find_mut(WEB_1).interface = 0)
            .step(one.first(), Drops(Reason::NoBackendNeighbour))
            .records(0)
            .step(two.first(), Opens(WEB_2)),
        Case::new(
            format!("{kind}: requests wait for a backend whose neighbour entry is gone"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .change(|world| world.find_mut(WEB_1).interface = 0)
        .step(one.later(), Drops(Reason::NoBackendNeighbour))
        .change(|world| world.find_mut(WEB_1).interface = network::BACK)
        .step(one.later(), Reaches(WEB_1))
        .flow(one, &[State::ESTABLISHED]),
        Case::new(format!("{kind}: a backend's Ethernet address changes under its flows"), world.clone())
            .establish(one, WEB_1)
            .change(|world| world.find_mut(WEB_1).mac = ANOTHER_MAC)
            .step(one.later(), Reaches(WEB_1))
            .step(one.later_answer(WEB_1), Returns),
        Case::new(format!("{kind}: a backend moves to another interface under its flows"), world)
            .establish(one, WEB_1)
            .change(|world| world.find_mut(WEB_1).interface = network::FRONT)
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
            format!("{kind}: a first packet longer than the MTU is too_big and makes no flow"),
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
        format!(
            "{kind}: a first packet that has no hop left is ttl_expired, makes no flow and costs no turn"
        ),
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
