//! TCP handshakes: what opens a flow, what proves it, and what does neither.

use lb_common::flow::State;
use lb_ebpf::packet::tcp::{ACK, FIN, REFUSED, RST, SYN};

use crate::{
    case::{Case, Opens, Reaches, Returns},
    dialogue::Dialogue,
    world::{Kind, WEB_1, WEB_2, World},
};

const HALF_OPEN: &[State] = &[State::HALF_OPEN];
const ESTABLISHED: &[State] = &[State::ESTABLISHED];

/// Acknowledgement numbers, relative to the SYN-ACK, and whether they prove the handshake.
const PROOFS: [(u32, bool); 7] =
    [(0, false), (1, true), (2, true), (65_536, true), (65_537, false), (1 << 31, false), (u32::MAX, false)];

/// TCP over both families with full-nat.
pub fn rows() -> Vec<Case> {
    Kind::tcp()
        .into_iter()
        .flat_map(|kind| opening(kind).into_iter().chain(proving(kind)).chain(refusing(kind)))
        .collect()
}

fn opening(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let world = World::new(kind);
    vec![
        Case::new(format!("{kind}: a SYN opens a half-open flow"), world.clone())
            .step(one.syn(), Opens(WEB_1))
            .flow(one, HALF_OPEN),
        Case::new(format!("{kind}: a SYN with ECN set up opens (RFC 3168, 6.1.1)"), world.clone())
            .step(one.syn().with(|packet| packet.tcp_mut().flags |= 0xc0), Opens(WEB_1))
            .flow(one, HALF_OPEN),
        Case::new(format!("{kind}: a SYN with data opens (RFC 7413)"), world.clone())
            .step(one.syn().with(|packet| packet.payload_mut().extend(b"early")), Opens(WEB_1))
            .flow(one, HALF_OPEN),
        Case::new(format!("{kind}: a repeated SYN keeps its backend and its port"), world.clone())
            .step(one.syn(), Opens(WEB_1))
            .after_s(1)
            .step(one.syn(), Reaches(WEB_1))
            .after_s(3)
            .step(one.syn(), Reaches(WEB_1))
            .flow(one, HALF_OPEN)
            .records(1),
        Case::new(
            format!("{kind}: a SYN of another connection between two repeated ones is its own flow"),
            world.clone(),
        )
        .step(one.syn(), Opens(WEB_1))
        .step(one.port(40_001).syn(), Opens(WEB_2))
        .step(one.syn(), Reaches(WEB_1))
        .step(one.port(40_001).syn(), Reaches(WEB_2))
        .records(2),
        Case::new(format!("{kind}: a SYN on an established flow goes to its backend (RFC 5961, 4.2)"), world)
            .establish(one, WEB_1)
            .step(one.syn(), Reaches(WEB_1))
            .flow(one, ESTABLISHED)
            .step(one.reply(WEB_1, ACK), Returns)
            .step(one.data(), Reaches(WEB_1))
            .records(1),
    ]
}

fn proving(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let world = World::new(kind);
    let answered = |name: &str| {
        Case::new(format!("{kind}: {name}"), world.clone())
            .step(one.syn(), Opens(WEB_1))
            .step(one.syn_ack(WEB_1), Returns)
            .flow(one, HALF_OPEN)
    };
    let mut rows: Vec<Case> = PROOFS
        .iter()
        .map(|(beyond, proves)| {
            let verb = if *proves { "proves" } else { "does not prove" };
            answered(&format!("an ACK of isn + {beyond} {verb} the handshake"))
                .step(one.ack(*beyond), Reaches(WEB_1))
                .flow(one, if *proves { ESTABLISHED } else { HALF_OPEN })
        })
        .collect();
    rows.extend([
        answered("data proves the handshake where the bare ACK was lost")
            .step(one.data(), Reaches(WEB_1))
            .flow(one, ESTABLISHED),
        answered("a FIN with the right ACK proves the handshake, and is a FIN")
            .step(one.fin(), Reaches(WEB_1))
            .flow(one, &[State(State::ESTABLISHED.0 | State::FIN_CLIENT | State::SHORT_CLIENT)]),
        answered("a RST proves nothing, whatever it acknowledges")
            .step(one.ack(1).with(|packet| packet.tcp_mut().flags = RST | ACK), Reaches(WEB_1))
            .flow(one, HALF_OPEN),
        answered("a SYN-ACK of the client proves nothing")
            .step(one.ack(1).with(|packet| packet.tcp_mut().flags = SYN | ACK), Reaches(WEB_1))
            .flow(one, HALF_OPEN),
        answered("a segment without ACK proves nothing")
            .step(one.ack(1).with(|packet| packet.tcp_mut().flags = FIN), Reaches(WEB_1))
            .flow(one, HALF_OPEN),
        answered("the latest SYN-ACK counts")
            .step(one.syn_ack(WEB_1).with(|packet| packet.tcp_mut().sequence = 1 << 20), Returns)
            .step(one.ack(1), Reaches(WEB_1))
            .flow(one, HALF_OPEN)
            .step(one.ack(1).with(|packet| packet.tcp_mut().acknowledgement = (1 << 20) + 1), Reaches(WEB_1))
            .flow(one, ESTABLISHED),
        Case::new(format!("{kind}: an ACK before the SYN-ACK proves nothing"), world.clone())
            .step(one.syn(), Opens(WEB_1))
            .step(one.ack(1), Reaches(WEB_1))
            .flow(one, HALF_OPEN),
        Case::new(format!("{kind}: other segments of the backend are no SYN-ACK"), world)
            .step(one.syn(), Opens(WEB_1))
            .step(one.reply(WEB_1, ACK).with(|packet| packet.tcp_mut().sequence = 5), Returns)
            .step(one.ack(1).with(|packet| packet.tcp_mut().acknowledgement = 6), Reaches(WEB_1))
            .flow(one, HALF_OPEN),
    ]);
    rows
}

fn refusing(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let world = World::new(kind);
    vec![
        Case::new(format!("{kind}: a client's RST leaves a half-open flow as it is"), world.clone())
            .step(one.syn(), Opens(WEB_1))
            .step(one.rst(), Reaches(WEB_1))
            .flow(one, HALF_OPEN),
        Case::new(
            format!("{kind}: a backend's RST ends a half-open flow, and a SYN gets another backend"),
            world.clone(),
        )
        .step(one.syn(), Opens(WEB_1))
        .step(one.reply_rst(WEB_1), Returns)
        .flow(one, &[REFUSED])
        .step(one.syn(), Opens(WEB_2))
        .flow(one, &[State(REFUSED.0 | State::SYN_WHILE_CLOSING), State::REOPENING])
        .step(one.syn_ack(WEB_2), Returns)
        .step(one.ack(1), Reaches(WEB_2))
        .flow(one, ESTABLISHED)
        .records(2),
        Case::new(format!("{kind}: a repeated RST of the backend still reaches the client"), world)
            .step(one.syn(), Opens(WEB_1))
            .step(one.reply_rst(WEB_1), Returns)
            .step(one.reply_rst(WEB_1), Returns),
    ]
}
