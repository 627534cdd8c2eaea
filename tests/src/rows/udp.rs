//! UDP: no handshake, and optional checksums.

use lb_common::{flow::State, net::Protocol, reason::Reason, service::Mode};

use crate::{
    case::{Case, Opens, Passes, Reaches, Returns},
    dialogue::Dialogue,
    packet::Packet,
    world::{Family, Kind, WEB_1, WEB_2, WEB_3, World},
};

/// States with full-nat, absent checksums in both modes, and checksums that come out as zero with nat.
pub fn rows() -> Vec<Case> {
    let mut rows: Vec<Case> = Kind::udp().into_iter().flat_map(states).collect();
    for mode in [Mode::FullNat, Mode::Nat] {
        rows.push(without_checksum(Kind::new(Family::V4, Protocol::Udp, mode)));
    }
    rows.extend(Family::ALL.map(|family| zero_sum(Kind::new(family, Protocol::Udp, Mode::Nat))));
    rows
}

fn states(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let world = World::new(kind);
    vec![
        Case::new(
            format!("{kind}: a client's datagram after the backend's answer proves the flow"),
            world.clone(),
        )
        .step(one.first(), Opens(WEB_1))
        .flow(one, &[State::HALF_OPEN])
        .step(one.answer(WEB_1), Returns)
        .flow(one, &[State::HALF_OPEN])
        .step(one.later(), Reaches(WEB_1))
        .flow(one, &[State::ESTABLISHED]),
        Case::new(format!("{kind}: a client without an answer proves nothing"), world.clone())
            .step(one.first(), Opens(WEB_1))
            .step(one.first(), Reaches(WEB_1))
            .step(one.later(), Reaches(WEB_1))
            .flow(one, &[State::HALF_OPEN]),
        Case::new(format!("{kind}: a backend's answers alone prove nothing"), world.clone())
            .step(one.first(), Opens(WEB_1))
            .step(one.answer(WEB_1), Returns)
            .step(one.later_answer(WEB_1), Returns)
            .flow(one, &[State::HALF_OPEN]),
        Case::new(format!("{kind}: an empty datagram is a datagram"), world.clone())
            .step(one.datagram(b""), Opens(WEB_1))
            .step(one.from(WEB_1, Packet::udp(one.listen, one.client, b"")), Returns),
        Case::new(
            format!("{kind}: a half-open flow moves away from a backend that gets no new flows"),
            world.clone(),
        )
        .step(one.first(), Opens(WEB_1))
        .change(|world| world.rest(WEB_1))
        .step(one.first(), Opens(WEB_3))
        .records(1)
        .step(one.answer(WEB_1), Passes(Reason::NotService))
        .step(one.answer(WEB_3), Returns),
        Case::new(format!("{kind}: an established flow stays with a backend that is drained"), world.clone())
            .establish(one, WEB_1)
            .change(|world| world.rest(WEB_1))
            .step(one.later(), Reaches(WEB_1))
            .step(one.later_answer(WEB_1), Returns),
        Case::new(
            format!("{kind}: an established flow gets another backend when its own lost its flows"),
            world,
        )
        .establish(one, WEB_1)
        .change(|world| world.renew(WEB_1))
        .step(one.later(), Opens(WEB_2))
        .records(1)
        .step(one.later_answer(WEB_1), Passes(Reason::NotService)),
    ]
}

fn without_checksum(kind: Kind) -> Case {
    let one = Dialogue::new(kind);
    let bare = |packet: &mut Packet| packet.udp_mut().without_checksum = true;
    Case::new(format!("{kind}: no checksum stays none, both ways (RFC 768)"), World::new(kind))
        .step(one.first().with(bare), Opens(WEB_1))
        .step(one.answer(WEB_1).with(bare), Returns)
        .step(one.later().with(bare), Reaches(WEB_1))
}

/// With nat all words of the rewritten datagram are known beforehand, so the payload can be chosen to match.
fn zero_sum(kind: Kind) -> Case {
    let one = Dialogue::new(kind);
    let world = World::new(kind);
    let backend = world.find(WEB_1).address;
    let payload = (0..=u16::MAX).map(u16::to_be_bytes).find(|payload| {
        let frame = Packet::udp(one.client, backend, payload).to_frame();
        frame[frame.len() - 4..frame.len() - 2] == [0xff, 0xff]
    });
    let payload = payload.unwrap_or_else(|| panic!("some word makes any sum zero"));
    Case::new(format!("{kind}: a checksum that becomes 0 is sent as 0xffff (RFC 768)"), world)
        .step(one.datagram(&payload), Opens(WEB_1))
        .step(one.datagram(&payload), Reaches(WEB_1))
}
