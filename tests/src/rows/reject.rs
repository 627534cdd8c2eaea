//! Answers to requests without a flow or a backend, and to both ends of ended flows: a TCP reset, an ICMP port unreachable,
//! or none.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    flow::State,
    limits::{ANSWER_DEBT_BYTES, ANSWERS_PER_SECOND},
    net::Protocol,
    quiet::Quiet,
    reason::Reason,
    service::{Mode, Reject},
};
use lb_ebpf::packet::tcp::{ACK, FIN, RST, SYN};

use crate::{
    case::{Case, Drops, Expected, Opens, Passes, Reaches, Resets, Returns, Unreachable, answered},
    dialogue::{Dialogue, Message},
    packet::Packet,
    world::{
        Family, Kind, WEB_1, WEB_2, World,
        network::{BACK, SIDE},
    },
};

const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0, 0, 1];
const NO_OPERATION: u8 = 1;

/// Which packets are answered, with what, and how often.
pub fn rows() -> Vec<Case> {
    let mut rows: Vec<Case> = Kind::all().into_iter().flat_map(every_kind).collect();
    rows.extend(Kind::tcp().into_iter().flat_map(resets));
    rows.extend(Kind::udp().into_iter().flat_map(errors));
    rows.extend(Kind::all().into_iter().flat_map(lost));
    rows.extend(Kind::all().into_iter().filter(|kind| kind.protocol == Protocol::Tcp).flat_map(ended));
    rows.extend(Kind::all().into_iter().map(quiet));
    rows.extend(Kind::tcp().into_iter().map(quiet_at_first));
    rows.extend(Family::ALL.map(unknown_replies));
    rows.push(limit());
    rows.extend(Family::ALL.map(debt));
    rows
}

/// A world whose service has no backend that takes new flows.
fn without_backends(kind: Kind) -> World {
    World::new(kind).with(|world| world.services[0].backends.iter_mut().for_each(|it| it.accepts = false))
}

/// A message that is refused in [`without_backends`], and the reason.
fn refused(kind: Kind) -> Vec<(Message, Reason)> {
    let one = Dialogue::new(kind);
    match kind.protocol {
        Protocol::Tcp => vec![(one.syn(), Reason::NoBackend), (one.data(), Reason::NoFlow)],
        Protocol::Udp => vec![(one.first(), Reason::NoBackend)],
    }
}

/// Another node may know the flow, and the client's next packet may reach it there.
fn quiet(kind: Kind) -> Case {
    let name = format!("{kind}: a quiet node drops packets of no flow, and answers those without a backend");
    let quiet = without_backends(kind).with(|world| world.quiet = Quiet::Always);
    let case = refused(kind).into_iter().fold(Case::new(name, quiet), |case, (message, reason)| {
        let expected = if reason == Reason::NoFlow { Drops(reason) } else { answered(kind.protocol, reason) };
        case.step(message, expected)
    });
    refused(kind).into_iter().fold(case.change(|world| world.quiet = Quiet::No), |case, (message, reason)| {
        case.step(message, answered(kind.protocol, reason))
    })
}

/// A node that is out of reach may come back, and tell of the flow.
fn quiet_at_first(kind: Kind) -> Case {
    let (one, other) = (Dialogue::new(kind), Dialogue::new(kind).port(40_001));
    let name =
        format!("{kind}: a node that misses a peer answers packets of no flow that still come after 2.5 s");
    Case::new(name, World::new(kind).with(|world| world.quiet = Quiet::AtFirst))
        .step(one.data(), Drops(Reason::NoFlow))
        .after_s(2)
        .step(one.data(), Drops(Reason::NoFlow))
        .step(other.data(), Drops(Reason::NoFlow))
        .after_s(1)
        .step(one.data(), Resets(Reason::NoFlow))
        .step(other.data(), Drops(Reason::NoFlow))
        .after_s(120)
        .step(one.data(), Drops(Reason::NoFlow))
        .step(other.data(), Resets(Reason::NoFlow))
        .change(|world| world.quiet = Quiet::No)
        .step(one.data(), Resets(Reason::NoFlow))
}

/// The host would reset the connection of a backend whose flow another node serves.
fn unknown_replies(ip: Family) -> Case {
    let kind = Kind::new(ip, Protocol::Tcp, Mode::FullNat);
    let world = World::new(kind);
    let backend = world.find(WEB_1).address;
    let reply = |port, flags| (BACK, Packet::tcp(backend, SocketAddr::new(ip.source(), port), flags));
    let (passes, drops) = (Passes(Reason::NotService), Drops(Reason::UnknownReply));
    let name = format!(
        "{kind}: a backend's segment of no flow is dropped for as long as a client's is not answered"
    );
    let case = Case::new(name, world).step(reply(2000, ACK), passes.clone());
    let quiet = case
        .change(|world| world.quiet = Quiet::Always)
        .step(reply(2000, ACK), drops.clone())
        .after_s(3)
        .step(reply(2000, ACK | FIN), drops.clone())
        // A port of the host, a segment that begins or ends a connection, and an address of another host.
        .step(reply(40_000, ACK), passes.clone())
        .step(reply(2000, SYN | ACK), passes.clone())
        .step(reply(2000, RST | ACK), passes.clone())
        .step((BACK, Packet::tcp(backend, SocketAddr::new(ip.client(1), 2000), ACK)), passes.clone());
    quiet
        .change(|world| world.quiet = Quiet::AtFirst)
        .step(reply(2000, ACK), drops)
        .after_s(3)
        .step(reply(2000, ACK), passes)
}

fn every_kind(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let silent = |name: &str, change: &dyn Fn(Message) -> Message| {
        let case = Case::new(format!("{kind}: {name} is not answered"), without_backends(kind));
        refused(kind)
            .into_iter()
            .fold(case, |case, (message, reason)| case.step(change(message), Drops(reason)))
    };
    let from = |v4, v6| {
        let address: IpAddr = kind.ip.address(v4, v6);
        move |mut message: Message| {
            message.dialogue = message.dialogue.client(address);
            message
        }
    };
    let mut dropping = Case::new(
        format!("{kind}: a service with reject = \"drop\" answers nothing, until that changes"),
        without_backends(kind).with(|world| world.services[0].reject = Reject::Drop),
    );
    let mut answering =
        Case::new(format!("{kind}: refused packets are answered, and open no flow"), without_backends(kind));
    for (message, reason) in refused(kind) {
        dropping = dropping.step(message.clone(), Drops(reason));
        answering = answering.step(message, answered(kind.protocol, reason)).records(0);
    }
    let again = refused(kind).remove(0);
    let mut rows = vec![
        dropping
            .change(|world| world.services[0].reject = Reject::Reset)
            .step(again.0, answered(kind.protocol, again.1)),
        answering
            .change(|world| world.find_mut(WEB_1).accepts = true)
            .step(one.first(), Opens(WEB_1))
            .step(one.later(), Reaches(WEB_1)),
        silent("a packet from a group MAC", &|message| message.with(|packet| packet.from_mac = GROUP_MAC)),
    ];
    // A new flow needs a route to its client first, and these have none.
    if kind.protocol == Protocol::Tcp && kind.mode == Mode::FullNat {
        let groups = [
            ("a group", "224.0.0.5", "ff02::5"),
            ("the unspecified address", "0.0.0.0", "::"),
            ("the loopback address", "127.0.0.1", "::1"),
            ("the listen address", "192.0.2.10", "2001:db8::10"),
        ];
        rows.extend(groups.map(|(name, v4, v6)| {
            let message = from(v4, v6)(one.data());
            Case::new(format!("{kind}: a packet from {name} is not answered"), World::new(kind))
                .step(message, Drops(Reason::NoFlow))
        }));
    }
    rows
}

/// TCP.
fn resets(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let with_flags = |flags, data: &'static [u8]| {
        one.ack(1).with(move |packet| {
            packet.tcp_mut().flags = flags;
            packet.payload_mut().extend(data);
        })
    };
    let mut lengths = Case::new(
        format!("{kind}: without ACK, a reset acknowledges data, SYN and FIN"),
        without_backends(kind),
    );
    for (flags, data, reason) in [
        (0, &b"123"[..], Reason::NoFlow),
        (FIN, b"1234", Reason::NoFlow),
        (SYN | FIN, b"", Reason::NoFlow),
        (SYN, b"early data", Reason::NoBackend),
    ] {
        lengths = lengths.step(with_flags(flags, data), Resets(reason));
    }
    let with_options = |message: Message| {
        message.with(move |packet| {
            packet.padding = 7;
            packet.tcp_mut().options = vec![NO_OPERATION; 40];
            if kind.ip == Family::V4 {
                packet.options = vec![NO_OPERATION; 40];
            }
        })
    };
    // The numbers of this sender are those after which sequence numbers wrap.
    let wrapping = one.ack(1).with(|packet| {
        let tcp = packet.tcp_mut();
        (tcp.sequence, tcp.flags) = (u32::MAX, FIN);
    });
    vec![
        lengths.step(wrapping, Resets(Reason::NoFlow)),
        Case::new(format!("{kind}: a reset has no options, data or padding"), without_backends(kind))
            .step(with_options(one.data()), Resets(Reason::NoFlow))
            .step(with_options(one.syn()), Resets(Reason::NoBackend)),
        Case::new(format!("{kind}: a reset leaves by the interface of the segment"), World::new(kind))
            .step(one.data().arriving_by(BACK), Resets(Reason::NoFlow))
            .step(one.data().arriving_by(SIDE), Resets(Reason::NoFlow)),
        // The MAC is not compared on an interface without xlb, such as a port of a bond.
        Case::new(format!("{kind}: a segment to a group MAC is not answered"), World::new(kind)).step(
            one.data().arriving_by(SIDE).with(|packet| packet.to_mac = GROUP_MAC),
            Drops(Reason::NoFlow),
        ),
        Case::new(format!("{kind}: a reset is not answered, with any other flags"), without_backends(kind))
            .step(with_flags(RST, b""), Drops(Reason::NoFlow))
            .step(with_flags(RST | ACK, b"text"), Drops(Reason::NoFlow))
            .step(with_flags(RST | SYN, b""), Drops(Reason::NoFlow))
            .step(with_flags(RST | FIN, b""), Drops(Reason::NoFlow)),
    ]
}

/// UDP.
fn errors(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let no_backend = Unreachable(Reason::NoBackend);
    let mut quoting = Case::new(
        format!("{kind}: an ICMP error quotes the IP header and eight bytes, of datagrams of any length"),
        without_backends(kind),
    );
    for length in [0, 1, 2, 18, 1000, 1400] {
        quoting = quoting.step(one.datagram(&vec![b'x'; length]), no_backend.clone());
    }
    let mut rows = vec![quoting];
    if kind.ip == Family::V4 {
        let options = |count| one.first().with(|packet| packet.options = vec![NO_OPERATION; count]);
        rows.push(
            Case::new(format!("{kind}: an ICMP error quotes IP options"), without_backends(kind))
                .step(options(4), no_backend.clone())
                .step(options(40), no_backend.clone())
                .step(one.first().with(|packet| packet.udp_mut().without_checksum = true), no_backend),
        );
    }
    rows
}

/// A flow whose backend has lost it: it is about to be ended.
fn lost(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let refused = answered(kind.protocol, Reason::NoFlow);
    let passes = Passes(Reason::NotService);
    let case = |name: &str| {
        Case::new(format!("{kind}: {name}"), World::new(kind))
            .establish(one, WEB_1)
            .change(|world| world.renew(WEB_1))
    };
    let timeout_s = match kind.protocol {
        Protocol::Tcp => 7440,
        Protocol::Udp => 300,
    };
    let elsewhere = SocketAddr::new(kind.ip.listen().ip(), 81);
    vec![
        case(
            "a backend's packets of a flow that it lost are answered, out of the interface where they arrive",
        )
        .step(one.later_answer(WEB_1), refused.clone())
        .step(one.answer(WEB_1).arriving_by(SIDE), refused.clone())
        .records(1),
        case("with reject = \"drop\", a backend's packets of a flow that it lost are dropped")
            .change(|world| world.services[0].reject = Reject::Drop)
            .step(one.later_answer(WEB_1), Drops(Reason::NoFlow))
            .change(|world| world.services[0].reject = Reject::Reset)
            .step(one.later_answer(WEB_1), refused.clone()),
        case("a backend's packets of a flow that it lost are the host's once the flow would have expired")
            .after_s(timeout_s)
            .step(one.later_answer(WEB_1), refused.clone())
            .after_s(1)
            .step(one.later_answer(WEB_1), passes.clone()),
        case("a backend's packets of a flow whose service is gone are the host's")
            .change(move |world| world.services[0].listen = vec![elsewhere])
            .step(one.later_answer(WEB_1), passes),
        case("a packet from a group MAC is not answered to a backend, either")
            .step(one.later_answer(WEB_1).with(|packet| packet.from_mac = GROUP_MAC), Drops(Reason::NoFlow)),
    ]
}

/// TCP flows that were ended: by the client's packet, as the controller ends them, or before their handshake or after a FIN.
fn ended(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let reset = Resets(Reason::NoFlow);
    let passes = Passes(Reason::NotService);
    let named = |name: &str| Case::new(format!("{kind}: {name}"), World::new(kind));
    let established = |name: &str| {
        named(name).establish(one, WEB_1).change(|world| world.renew(WEB_1)).step(one.data(), reset.clone())
    };
    let with_flags = |flags| one.reply(WEB_1, flags);
    vec![
        established("each segment of the backend of an ended flow is answered with a reset, but for resets")
            .flow(one, &[])
            .step(one.later_answer(WEB_1), reset.clone())
            .step(one.reply_fin(WEB_1), reset.clone())
            .step(one.syn_ack(WEB_1), reset.clone())
            .step(with_flags(0), reset.clone())
            .step(with_flags(FIN), reset.clone())
            .step(one.reply_rst(WEB_1), Drops(Reason::NoFlow))
            .step(with_flags(RST), Drops(Reason::NoFlow))
            .step(one.later_answer(WEB_1), reset.clone())
            .step(one.data(), reset.clone())
            .records(1),
        established("with reject = \"drop\", no end of an ended flow is answered")
            .change(|world| world.services[0].reject = Reject::Drop)
            .step(one.later_answer(WEB_1), Drops(Reason::NoFlow))
            .step(one.data(), Drops(Reason::NoFlow)),
        established("the backend of an ended flow is answered for as long as the flow could have been idle")
            .after_s(7440)
            .step(one.later_answer(WEB_1), reset.clone())
            .after_s(1)
            .step(one.later_answer(WEB_1), passes.clone()),
        named("the backend of a half-open flow that it lost is answered")
            .step(one.syn(), Opens(WEB_1))
            .change(|world| world.renew(WEB_1))
            .step(one.syn_ack(WEB_1), reset.clone())
            .step(one.reply_rst(WEB_1), Drops(Reason::NoFlow))
            .flow(one, &[State::HALF_OPEN]),
        named("the backend of a closing flow that it lost is answered")
            .establish(one, WEB_1)
            .step(one.fin(), Reaches(WEB_1))
            .change(|world| world.renew(WEB_1))
            .step(one.reply_fin(WEB_1), reset.clone()),
        named("the backend of a flow that a reopening one has replaced is not answered: it is in TIME-WAIT")
            .establish(one, WEB_1)
            .step(one.reply_fin(WEB_1), Returns)
            .step(one.fin(), Reaches(WEB_1))
            .step(one.syn(), Opens(WEB_2))
            .step(one.syn_ack(WEB_2), Returns)
            .step(one.ack(1), Reaches(WEB_2))
            .records(2)
            .step(one.reply_fin(WEB_1), passes),
    ]
}

/// The limit is that of all services and families together: it is one word.
fn limit() -> Case {
    let kind = Kind::tcp()[0];
    let one = Dialogue::new(kind);
    let mut case = Case::new(
        format!("{kind}: after {ANSWERS_PER_SECOND} answers, packets are dropped until the second is over"),
        World::new(kind),
    );
    for _ in 0..ANSWERS_PER_SECOND {
        case = case.step(one.ack(1), Resets(Reason::NoFlow));
    }
    case.step(one.ack(1), Drops(Reason::NoFlow))
        .step(one.data(), Drops(Reason::NoFlow))
        .after_s(2)
        .step(one.data(), Resets(Reason::NoFlow))
}

/// The smallest datagrams do not pay for their errors.
fn debt(ip: Family) -> Case {
    let kind = Kind::new(ip, Protocol::Udp, Mode::FullNat);
    let one = Dialogue::new(kind);
    let (received, sent) = match ip {
        Family::V4 => (14 + 20 + 8, 14 + 20 + 8 + 20 + 8),
        Family::V6 => (14 + 40 + 8, 14 + 40 + 8 + 40 + 8),
    };
    let (mut case, mut debt): (Case, u32) = (
        Case::new(
            format!("{kind}: answers have no more bytes than refused packets, beyond {ANSWER_DEBT_BYTES}"),
            without_backends(kind),
        ),
        0,
    );
    let step = |case: Case, expected: Expected| case.step(one.datagram(b""), expected);
    for _ in 0..ANSWER_DEBT_BYTES / 20 {
        if debt + sent - received <= ANSWER_DEBT_BYTES {
            debt += sent - received;
            case = step(case, Unreachable(Reason::NoBackend));
        } else {
            debt = debt.saturating_sub(received);
            case = step(case, Drops(Reason::NoBackend));
        }
    }
    // A large datagram pays everything back.
    let large = vec![b'x'; 1400];
    for _ in 0..4 {
        case = case.step(one.datagram(&large), Unreachable(Reason::NoBackend));
    }
    for _ in 0..ANSWER_DEBT_BYTES / (sent - received) {
        case = step(case, Unreachable(Reason::NoBackend));
    }
    step(case, Drops(Reason::NoBackend))
}
