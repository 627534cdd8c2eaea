//! ICMP errors about flows are translated both ways, so that path MTU discovery works through xlb.

use lb_common::{net::Protocol, reason::Reason};

use crate::{
    case::{Case, Drops, Input, Passes, Reaches, Returns},
    dialogue::{Dialogue, IcmpError, Message, Sender},
    packet::{Content, HOPS, Icmp, Packet},
    world::{
        Family, Kind, WEB_1, World,
        network::{BACK, FRONT},
    },
};

const MTU_1400: [u8; 4] = [0, 0, 0x05, 0x78];
const NOTHING: [u8; 4] = [0; 4];

/// An error's name, type, code, and the four bytes behind the checksum.
type Error = (&'static str, u8, u8, [u8; 4]);

/// RFC 792, RFC 1191.
const ERRORS4: [Error; 5] = [
    ("host unreachable", 3, 1, NOTHING),
    ("port unreachable", 3, 3, NOTHING),
    ("fragmentation needed", 3, 4, MTU_1400),
    ("time exceeded", 11, 0, NOTHING),
    ("parameter problem", 12, 0, [20, 0, 0, 0]),
];

/// RFC 4443.
const ERRORS6: [Error; 4] = [
    ("unreachable", 1, 4, NOTHING),
    ("packet too big", 2, 0, MTU_1400),
    ("time exceeded", 3, 0, NOTHING),
    ("parameter problem", 4, 1, [0, 0, 0, 40]),
];

/// Every kind, with errors about requests and about replies.
pub fn rows() -> Vec<Case> {
    Kind::all()
        .into_iter()
        .flat_map(|kind| errors(kind).into_iter().chain(mtus(kind)).chain(quotes(kind)).chain(refusals(kind)))
        .collect()
}

fn about(kind: Kind, message: Message, (_, code_kind, code, rest): Error) -> IcmpError {
    let router = match message.sender {
        Sender::Client => kind.ip.inside(250),
        Sender::Backend(_) => kind.ip.client(250),
    };
    let quoted_bytes = match kind.ip {
        Family::V4 => 576 - 28,
        Family::V6 => 1280 - 48,
    };
    let icmp = Icmp { kind: code_kind, code, rest, payload: Vec::new() };
    IcmpError { about: message, backend: WEB_1, router, icmp, quoted_bytes, hops: HOPS }
}

/// An error about a message that we forwarded.
pub(super) fn any_error(kind: Kind, message: Message) -> IcmpError {
    about(kind, message, all(kind)[0])
}

fn all(kind: Kind) -> Vec<Error> {
    match kind.ip {
        Family::V4 => ERRORS4.to_vec(),
        Family::V6 => ERRORS6.to_vec(),
    }
}

fn established(kind: Kind, name: &str) -> Case {
    Case::new(format!("{kind}: {name}"), World::new(kind)).establish(Dialogue::new(kind), WEB_1)
}

fn errors(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let rows = all(kind).into_iter().flat_map(|error| {
        let (name, ..) = error;
        [
            established(kind, &format!("{name} about a request goes to the client"))
                .step(about(kind, one.later(), error), Returns)
                .step(one.later(), Reaches(WEB_1)),
            established(kind, &format!("{name} about a reply goes to the backend"))
                .step(about(kind, one.later_answer(WEB_1), error), Reaches(WEB_1))
                .step(one.later_answer(WEB_1), Returns),
        ]
    });
    rows.collect()
}

/// A forged error could report a uselessly small MTU. MTUs below the minimum of IPv6, or of Linux for IPv4, are
/// ignored.
fn mtus(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let (too_big, least) = match kind.ip {
        Family::V4 => (ERRORS4[2], 552_u32),
        Family::V6 => (ERRORS6[1], 1280),
    };
    let wanting = |message, mtu: u32| {
        let (name, error_kind, code, _) = too_big;
        about(kind, message, (name, error_kind, code, mtu.to_be_bytes()))
    };
    let small = [1, 68, least - 1].into_iter().fold(
        established(kind, "an error with an MTU below the minimum is dropped"),
        |case, mtu| {
            case.step(wanting(one.later(), mtu), Drops(Reason::MtuTooSmall))
                .step(wanting(one.later_answer(WEB_1), mtu), Drops(Reason::MtuTooSmall))
        },
    );
    let least = established(kind, "the smallest MTU in use is reported")
        .step(wanting(one.later(), least), Returns)
        .step(wanting(one.later_answer(WEB_1), least), Reaches(WEB_1));
    let zero = match kind.ip {
        // From a router older than RFC 1191.
        Family::V4 => established(kind, "an MTU that the router does not report is filled in")
            .step(wanting(one.later(), 0), Returns)
            .step(wanting(one.later_answer(WEB_1), 0), Reaches(WEB_1)),
        Family::V6 => established(kind, "an MTU of zero is dropped")
            .step(wanting(one.later(), 0), Drops(Reason::MtuTooSmall)),
    };
    vec![small.step(one.later(), Reaches(WEB_1)), least, zero]
}

/// Quotes of every possible length, from the first eight bytes behind the IP header to the whole packet.
fn quotes(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let error = all(kind)[1];
    let ip_header = match kind.ip {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    let long = |message: Message| message.with(|packet| packet.payload_mut().resize(200, b'x'));
    let mut lengths = established(kind, "a quote of any length is translated as far as it goes");
    // 17 bytes would end within a TCP checksum; half a checksum is left as it is.
    for l4_bytes in (8..=24).filter(|bytes| *bytes != 17).chain([100, 207, 208, 220]) {
        let cut = |error: IcmpError| IcmpError { quoted_bytes: ip_header + l4_bytes, ..error };
        lengths = lengths
            .step(cut(about(kind, long(one.later()), error)), Returns)
            .step(cut(about(kind, long(one.later_answer(WEB_1)), error)), Reaches(WEB_1));
    }
    let mut rows = vec![lengths];
    if kind.ip == Family::V4 {
        let options = |message: Message| message.with(|packet| packet.options = vec![1; 12]);
        rows.push(
            established(kind, "ports of a quote are found behind IPv4 options")
                .step(about(kind, options(one.later()), error), Returns)
                .step(about(kind, options(one.later_answer(WEB_1)), error), Reaches(WEB_1)),
        );
    }
    if kind.ip == Family::V4 && kind.protocol == Protocol::Udp {
        let bare = |message: Message| message.with(|packet| packet.udp_mut().without_checksum = true);
        rows.push(
            established(kind, "a quoted datagram without checksum stays without")
                .step(about(kind, bare(one.later()), error), Returns)
                .step(about(kind, bare(one.later_answer(WEB_1)), error), Reaches(WEB_1)),
        );
    }
    rows
}

fn refusals(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let error = all(kind)[0];
    let (_, error_kind, code, rest) = error;
    let source = std::net::SocketAddr::new(kind.ip.source(), 1025);
    let message = |payload: Vec<u8>| Content::Icmp(Icmp { kind: error_kind, code, rest, payload });
    let backend = World::new(kind).find(WEB_1).address;
    let unknown = Packet::first(kind.protocol, source, backend).quoted(200);
    let to_source = |payload| Packet::new(kind.ip.inside(250), kind.ip.source(), message(payload));
    let to_listen = |payload| Packet::new(kind.ip.client(250), one.listen.ip(), message(payload));
    let stray = Packet::first(kind.protocol, one.listen, one.port(50_000).client).quoted(200);
    let mut cut = established(kind, "an error without a whole quote is passed to the host");
    let whole = to_listen(stray.clone()).to_frame();
    let ip_header = whole.len() - 8 - stray.len();
    for bytes in ip_header..ip_header + 8 + stray.len() {
        cut = cut.step(Input::Frame(FRONT, whole[..bytes].to_vec()), Passes(Reason::NotService));
    }
    let expiring = |message| IcmpError { hops: 1, ..about(kind, message, error) };
    vec![
        established(kind, "an error about a flow that is not ours is passed to the host")
            .step((BACK, to_source(unknown)), Passes(Reason::NotService))
            .step((FRONT, to_listen(stray)), Passes(Reason::NotService)),
        cut,
        established(kind, "an error that quotes neither TCP nor UDP is passed to the host").step(
            (
                FRONT,
                to_listen(
                    Packet::new(
                        one.listen.ip(),
                        one.client.ip(),
                        Content::Other { protocol: 47, bytes: vec![0; 40] },
                    )
                    .quoted(200),
                ),
            ),
            Passes(Reason::NotService),
        ),
        established(kind, "an error without hops left is not translated")
            .step(expiring(one.later()), Drops(Reason::TtlExpired))
            .step(expiring(one.later_answer(WEB_1)), Drops(Reason::TtlExpired)),
        established(kind, "an error about a flow whose backend lost it is passed to the host")
            .change(|world| world.renew(WEB_1))
            .step(about(kind, one.later(), error), Passes(Reason::NotService))
            .step(about(kind, one.later_answer(WEB_1), error), Passes(Reason::NotService)),
    ]
}
