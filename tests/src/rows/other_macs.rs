//! Frames that are not for the interface's own MAC: a switch floods, a host broadcasts, the interface is promiscuous.

use lb_common::reason::Reason;

use crate::{
    case::{Case, Opens, Passes, Reaches, Returns},
    dialogue::{Dialogue, Message},
    packet::{MORE_FRAGMENTS, Packet},
    world::{
        Kind, WEB_1, WEB_2, World,
        network::{BACK, FRONT, mac_of_interface},
    },
};

const ANOTHER: [u8; 6] = [2, 0xff, 0, 0, 0, 1];
const BROADCAST: [u8; 6] = [0xff; 6];
const MULTICAST: [u8; 6] = [0x01, 0x00, 0x5e, 0, 0, 1];

/// Every kind: both directions, and frames that would be refused if they were for us.
pub fn rows() -> Vec<Case> {
    Kind::all().into_iter().flat_map(addressed).chain(Kind::all().into_iter().map(moved)).collect()
}

fn to(mac: [u8; 6], message: Message) -> Message {
    message.with(|packet| packet.to_mac = mac)
}

fn addressed(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    // One bit of each halfword, and the address of the other interface.
    let near = [1, 3, 5].map(|byte| {
        let mut mac = mac_of_interface(FRONT);
        mac[byte] ^= 0x40;
        mac
    });
    let others = [ANOTHER, BROADCAST, MULTICAST, mac_of_interface(BACK)].into_iter().chain(near);
    let mut opening = Case::new(
        format!("{kind}: only a first packet to the interface's own MAC opens a flow"),
        World::new(kind),
    );
    for mac in others {
        opening = opening.step(to(mac, one.first()), Passes(Reason::NotOurMac));
    }
    let known = Case::new(format!("{kind}: packets of a flow to another MAC are passed"), World::new(kind))
        .establish(one, WEB_1)
        .step(to(ANOTHER, one.later()), Passes(Reason::NotOurMac))
        .step(to(BROADCAST, one.later()), Passes(Reason::NotOurMac))
        .step(to(ANOTHER, one.later_answer(WEB_1)), Passes(Reason::NotOurMac))
        .step(to(mac_of_interface(FRONT), one.later_answer(WEB_1)), Passes(Reason::NotOurMac))
        .step(one.later(), Reaches(WEB_1))
        .step(one.later_answer(WEB_1), Returns);
    let fragment = Packet::first(kind.protocol, one.client, one.listen).with(|packet| {
        packet.to_mac = ANOTHER;
        packet.fragment = MORE_FRAGMENTS;
        packet.hops = 1;
    });
    let refused = Case::new(
        format!("{kind}: a packet for another MAC is passed even if it is broken"),
        World::new(kind),
    )
    .step((FRONT, fragment.clone()), Passes(Reason::NotOurMac))
    .step((FRONT, fragment.to_frame()[..40].to_vec()), Passes(Reason::NotOurMac));
    vec![opening.records(0).step(one.first(), Opens(WEB_1)), known, refused]
}

fn moved(kind: Kind) -> Case {
    let (one, two) = (Dialogue::new(kind), Dialogue::new(kind).port(40_001));
    Case::new(format!("{kind}: after an interface's MAC changed, only the new one is ours"), World::new(kind))
        .establish(one, WEB_1)
        .change(|world| {
            world.own_macs.insert(FRONT, ANOTHER);
        })
        .step(to(mac_of_interface(FRONT), one.later()), Passes(Reason::NotOurMac))
        .step(to(mac_of_interface(FRONT), two.first()), Passes(Reason::NotOurMac))
        .step(to(ANOTHER, one.later()), Reaches(WEB_1))
        .step(one.later_answer(WEB_1), Returns)
        .step(to(ANOTHER, two.first()), Opens(WEB_2))
}
