//! Broken, truncated and odd packets: dropped if they are for a service, passed to the host otherwise; never a panic.

use std::net::IpAddr;

use lb_common::{net::Protocol, reason::Reason};

use crate::{
    case::{Case, Drops, Expected, Passes, Reaches, Returns},
    dialogue::Dialogue,
    packet::{Content, DONT_FRAGMENT, MORE_FRAGMENTS, Packet},
    world::{Family, Kind, WEB_1, World, network::FRONT},
};

const ETHERNET: usize = 14;

/// Both protocols over both families, each packet for a service and for another address.
pub fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for kind in Kind::tcp().into_iter().chain(Kind::udp()) {
        rows.extend(cuts(kind));
        rows.extend(lengths(kind));
        rows.extend(fragments(kind));
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        rows.extend(options(Kind::new(Family::V4, protocol, lb_common::service::Mode::FullNat)));
        rows.extend(extensions(Kind::new(Family::V6, protocol, lb_common::service::Mode::FullNat)));
    }
    rows
}

/// A packet that opens a flow, unless truncated, and the same to an address that is not ours.
fn packets(kind: Kind) -> [(&'static str, Packet, bool); 2] {
    let one = Dialogue::new(kind);
    let packet = Packet::first(kind.protocol, one.client, one.listen);
    let other = packet.clone().with(|packet| packet.destination = unused_address(kind.ip));
    [("for a service", packet, true), ("for another address", other, false)]
}

fn unused_address(ip: Family) -> IpAddr {
    ip.address("192.0.2.99", "2001:db8::99")
}

const fn drops_if_ours(is_ours: bool, reason: Reason) -> Expected {
    if is_ours { Drops(reason) } else { Passes(Reason::NotService) }
}

fn ip_header(kind: Kind) -> usize {
    match kind.ip {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// Frames that are shorter than an Ethernet header, which the kernel's test-run does not take.
pub fn runts() -> Vec<Case> {
    let kinds = Kind::tcp().into_iter().chain(Kind::udp());
    let rows = kinds.map(|kind| {
        let [(_, packet, _), _] = packets(kind);
        (0..ETHERNET).fold(
            Case::new(
                format!("{kind}: a frame shorter than an Ethernet header is passed to the host"),
                World::new(kind),
            ),
            |case, bytes| case.step((FRONT, packet.to_frame()[..bytes].to_vec()), Passes(Reason::Truncated)),
        )
    });
    rows.collect()
}

fn cuts(kind: Kind) -> Vec<Case> {
    packets(kind)
        .into_iter()
        .map(|(whose, packet, is_ours)| {
            let frame = packet.to_frame();
            let mut case = Case::new(
                format!("{kind}: a packet {whose}, truncated anywhere, opens no flow"),
                World::new(kind),
            );
            for bytes in ETHERNET..frame.len() {
                let expected = if bytes < ETHERNET + ip_header(kind) {
                    Passes(Reason::Truncated)
                } else {
                    drops_if_ours(is_ours, Reason::Malformed)
                };
                case = case.step((FRONT, frame[..bytes].to_vec()), expected);
            }
            case.records(0)
        })
        .collect()
}

/// A byte of the IP packet, and its replacement.
type Patch = (&'static str, usize, u8);

fn lengths(kind: Kind) -> Vec<Case> {
    let l4 = ip_header(kind);
    let ip: &[Patch] = match kind.ip {
        Family::V4 => &[
            ("version 5", 0, 0x55),
            ("version 6", 0, 0x65),
            ("a header of four words", 0, 0x44),
            ("a header of no words", 0, 0x40),
            ("a header longer than the packet", 0, 0x4f),
            ("a total length beyond the frame", 3, 0xff),
            ("a total length of nothing", 3, 0),
            ("a total length below the header's", 3, 19),
            ("a total length that ends within the ports", 3, 22),
        ],
        Family::V6 => &[
            ("version 4", 0, 0x45),
            ("version 0", 0, 0),
            ("a payload length beyond the frame", 5, 0xff),
            ("a payload length of nothing", 5, 0),
            ("a payload length that ends within the ports", 5, 2),
        ],
    };
    let tcp = [("a TCP header of four words", l4 + 12, 0x40), ("a TCP header of no words", l4 + 12, 0)];
    let udp = [("a UDP length of 7", l4 + 5, 7), ("a UDP length beyond the packet", l4 + 5, 0xff)];
    let l4_patches = match kind.protocol {
        Protocol::Tcp => tcp,
        Protocol::Udp => udp,
    };
    ip.iter()
        .chain(&l4_patches)
        .map(|(what, at, value)| {
            let mut case = Case::new(format!("{kind}: {what} is malformed if it is ours"), World::new(kind));
            for (_, packet, is_ours) in packets(kind) {
                let mut frame = packet.to_frame();
                frame[ETHERNET + at] = *value;
                case = case.step((FRONT, frame), drops_if_ours(is_ours, Reason::Malformed));
            }
            case.records(0)
        })
        .collect()
}

/// A kind of fragment, and the change that makes a packet one.
type Fragment = (&'static str, fn(&mut Packet));

fn fragments(kind: Kind) -> Vec<Case> {
    let fragments: Vec<Fragment> = match kind.ip {
        Family::V4 => vec![
            ("first fragment", |packet| packet.fragment = MORE_FRAGMENTS),
            ("middle fragment", |packet| packet.fragment = MORE_FRAGMENTS | 8),
            ("last fragment", |packet| packet.fragment = 185),
            ("fragment that must not be one", |packet| packet.fragment = DONT_FRAGMENT | 1),
        ],
        Family::V6 => vec![("fragment header", |packet| packet.extensions = vec![(44, 1)])],
    };
    let rows = fragments.into_iter().map(|(what, change)| {
        let mut case = Case::new(format!("{kind}: a {what} for a service is dropped"), World::new(kind));
        for (_, packet, is_ours) in packets(kind) {
            case = case.step((FRONT, packet.with(change)), drops_if_ours(is_ours, Reason::Fragment));
        }
        case.records(0)
    });
    rows.collect()
}

/// Every header length from 6 words to 15.
fn options(kind: Kind) -> Vec<Case> {
    const NO_OPERATION: u8 = 1;
    let one = Dialogue::new(kind);
    let mut rows: Vec<Case> = (1..=10)
        .map(|words| {
            let with_options = |packet: &mut Packet| packet.options = vec![NO_OPERATION; words * 4];
            Case::new(
                format!(
                    "{kind}: {words} words of header are kept, and the ports are found behind the options"
                ),
                World::new(kind),
            )
            .establish(one, WEB_1)
            .step(one.later().with(with_options), Reaches(WEB_1))
            .step(one.later_answer(WEB_1).with(with_options), Returns)
        })
        .collect();
    let odd = |packet: &mut Packet| (packet.class, packet.label, packet.fragment) = (0xb9, 0xffff, 0);
    rows.push(
        Case::new(format!("{kind}: DSCP, ECN, identification and flags stay as they are"), World::new(kind))
            .establish(one, WEB_1)
            .step(one.later().with(odd), Reaches(WEB_1))
            .step(one.later_answer(WEB_1).with(odd), Returns),
    );
    rows
}

fn extensions(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let headers = [
        ("hop-by-hop options", vec![(0, 1)]),
        ("a routing header", vec![(43, 1)]),
        ("an authentication header", vec![(51, 2)]),
        ("destination options", vec![(60, 3)]),
        ("two extension headers", vec![(0, 1), (60, 1)]),
    ];
    let mut rows: Vec<Case> = headers
        .into_iter()
        .map(|(what, extensions)| {
            let mut case = Case::new(format!("{kind}: {what} for a service is dropped"), World::new(kind));
            for (_, packet, is_ours) in packets(kind) {
                let packet = packet.with(|packet| packet.extensions = extensions.clone());
                case = case.step((FRONT, packet), drops_if_ours(is_ours, Reason::ExtensionHeader));
            }
            case.records(0)
        })
        .collect();
    let odd = |packet: &mut Packet| (packet.class, packet.label) = (0xb9, 0xffff);
    let unknown =
        Packet::new(one.client.ip(), one.listen.ip(), Content::Other { protocol: 50, bytes: vec![0; 40] });
    rows.extend([
        Case::new(format!("{kind}: traffic class and flow label stay as they are"), World::new(kind))
            .establish(one, WEB_1)
            .step(one.later().with(odd), Reaches(WEB_1))
            .step(one.later_answer(WEB_1).with(odd), Returns),
        Case::new(
            format!("{kind}: headers that cannot hide TCP or UDP are passed to the host"),
            World::new(kind),
        )
        .step((FRONT, unknown), Passes(Reason::NotService)),
    ]);
    rows
}
