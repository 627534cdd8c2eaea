//! Packets that are not ours go to the host unchanged.

use std::net::SocketAddr;

use lb_common::{
    net::{Be16, Protocol},
    reason::Reason,
    service::{Filter, Mode},
};

use crate::{
    case::{Case, Opens, Passes},
    dialogue::Dialogue,
    packet::{Content, Icmp, Packet},
    world::{
        Family, Kind, WEB_1, World,
        network::{BACK, FRONT},
    },
};

/// Both protocols over both families, then protocols and Ethernet types that no service has.
pub fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for ip in Family::ALL {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let kind = Kind::new(ip, protocol, Mode::FullNat);
            rows.extend(endpoints(kind));
        }
        rows.push(other_protocols(Kind::new(ip, Protocol::Tcp, Mode::FullNat)));
    }
    rows.push(other_ethertypes());
    rows
}

fn endpoints(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let world = World::new(kind);
    let backend = world.find(WEB_1).address;
    let to = |destination| Packet::first(kind.protocol, one.client, destination);
    let port_0 = SocketAddr::new(one.listen.ip(), 0);
    let other_port = SocketAddr::new(one.listen.ip(), 81);
    let other_address = SocketAddr::new(kind.ip.address("192.0.2.99", "2001:db8::99"), 80);
    let other_protocol = match kind.protocol {
        Protocol::Tcp => Protocol::Udp,
        Protocol::Udp => Protocol::Tcp,
    };
    let (like_service, like_backend) = (lookalike(one.listen), lookalike(backend));
    vec![
        Case::new(
            format!("{kind}: packets to another port of a service's address are passed to the host"),
            world.clone(),
        )
        .step((FRONT, to(other_port)), Passes(Reason::NotService)),
        Case::new(format!("{kind}: another address is passed to the host"), world.clone())
            .step((FRONT, to(other_address)), Passes(Reason::NotService)),
        Case::new(format!("{kind}: another protocol on a service's port is passed to the host"), world.clone())
            .step((FRONT, Packet::first(other_protocol, one.client, one.listen)), Passes(Reason::NotService)),
        Case::new(
            format!("{kind}: packets that only share a service's byte of the prefilter are passed to the host"),
            world.clone(),
        )
        .step((FRONT, to(like_service)), Passes(Reason::NotService))
        .records(0),
        Case::new(
            format!(
                "{kind}: packets to port 0 of a service's address are passed to the host, whatever the prefilter says"
            ),
            world.clone().with(|world| world.services[0].listen.push(lookalike(port_0))),
        )
        .step((FRONT, to(port_0)), Passes(Reason::NotService))
        .records(0),
        Case::new(
            format!("{kind}: packets that only share a backend's byte of the prefilter are passed to the host"),
            world.clone(),
        )
        .step((BACK, Packet::first(kind.protocol, like_backend, one.client)), Passes(Reason::NotService))
        .records(0),
        Case::new(format!("{kind}: a packet between two unrelated hosts is passed to the host"), world.clone())
            .step(
                (FRONT, Packet::first(kind.protocol, one.client, other_address)),
                Passes(Reason::NotService),
            )
            .step(
                (BACK, Packet::first(kind.protocol, other_address, one.client)),
                Passes(Reason::NotService),
            ),
        Case::new(format!("{kind}: a backend may be a client of the service"), world)
            .step(one.client(backend.ip()).port(8080).first(), Opens(WEB_1)),
    ]
}

/// Another endpoint with the same byte of the prefilter.
fn lookalike(endpoint: SocketAddr) -> SocketAddr {
    let byte =
        |endpoint: SocketAddr| Filter::place(Filter::fold(endpoint.ip().into()), Be16::new(endpoint.port()));
    let family = if endpoint.is_ipv4() { Family::V4 } else { Family::V6 };
    let addresses =
        (1..=99).map(|host| family.address(&format!("203.0.113.{host}"), &format!("2001:db8:113::{host}")));
    let mut candidates =
        addresses.flat_map(|address| (1..=u16::MAX).map(move |port| SocketAddr::new(address, port)));
    candidates
        .find(|it| byte(*it) == byte(endpoint))
        .unwrap_or_else(|| panic!("6 million endpoints, 262144 bytes"))
}

fn other_protocols(kind: Kind) -> Case {
    let one = Dialogue::new(kind);
    let packet = |content| Packet::new(one.client.ip(), one.listen.ip(), content);
    let echo = match kind.ip {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    let ping = Icmp { kind: echo, code: 0, rest: [0, 1, 0, 1], payload: vec![0x55; 56] };
    let mut case = Case::new(
        format!("{kind}: other protocols, ping among them, are passed to the host"),
        World::new(kind),
    )
    .step((FRONT, packet(Content::Icmp(ping.clone()))), Passes(Reason::NotService))
    .step((FRONT, packet(Content::Icmp(Icmp { kind: echo + 1, ..ping }))), Passes(Reason::NotService));
    for protocol in [4, 41, 47, 50, 132] {
        let content = Content::Other { protocol, bytes: vec![0; 32] };
        case = case.step((FRONT, packet(content)), Passes(Reason::NotService));
    }
    case
}

fn other_ethertypes() -> Case {
    let kind = Kind::tcp()[0];
    let one = Dialogue::new(kind);
    let syn = Packet::first(Protocol::Tcp, one.client, one.listen).to_frame();
    let mut case =
        Case::new("VLANs, ARP and everything that is not IP are passed to the host", World::new(kind));
    for ethertype in [0x0806_u16, 0x8100, 0x88a8, 0x88cc, 0x8847, 0x0004, 0] {
        let mut frame = syn.clone();
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        case = case.step((FRONT, frame), Passes(Reason::NotIp));
    }
    let mut tagged = syn;
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x64]);
    case.step((FRONT, tagged), Passes(Reason::NotIp)).records(0)
}
