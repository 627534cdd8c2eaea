//! A SYN on the tuple of a flow that is closing.

use lb_common::{flow::State, net::Protocol, service::Mode};
use lb_ebpf::packet::tcp::ACK;
use tests::{
    case::{Case, Depends, Opens, Reaches, Returns},
    dialogue::Dialogue,
    world::{Family, Kind, WEB_1, WEB_2, WEB_3, World},
};

use crate::{at_every_access, both, challenged, proof};

#[test]
fn a_challenger_that_is_evicted_while_it_is_chosen_leaves_its_packet_to_nobody_else() {
    at_every_access(Kind::tcp(), |kind| {
        let (one, case) = challenged(kind, "a challenger's proof, and a newcomer");
        let new = one.client(kind.ip.client(8));
        case.stands_still(proof(one), |case| case.step(new.first(), Depends)).step(new.first(), Depends)
    });
}

#[test]
fn a_challenger_and_the_flow_that_it_challenges_do_not_mind_who_is_first() {
    at_every_access(Kind::tcp(), |kind| {
        let one = Dialogue::new(kind);
        Case::new(format!("{kind}: a goodbye while its challenger is proven"), World::new(kind))
            .establish(one, WEB_1)
            .step(one.fin(), Reaches(WEB_1))
            .step(one.syn(), Opens(WEB_2))
            .step(one.answer(WEB_2), Returns)
            .stands_still(proof(one), |case| case.step(one.reply_fin(WEB_1), Depends))
            .step(one.later(), Reaches(WEB_2))
            .flow(one, &[State::ESTABLISHED])
    });
}

#[test]
fn a_first_packet_that_comes_late_challenges_no_flow_that_lives() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        let world = World::new(kind).with_one_backend();
        Case::new(format!("{kind}: a first packet, repeated and proven meanwhile"), world)
            .stands_still(one.first(), |case| {
                case.step(one.first(), Depends).step(one.answer(WEB_1), Depends).step(proof(one), Depends)
            })
            .flow_depends(one, &[&[State::ESTABLISHED], &[State::HALF_OPEN], &[]])
    });
}

#[test]
fn a_challenger_that_comes_late_retires_nobody_but_the_flow_that_it_challenged() {
    at_every_access(Kind::tcp(), |kind| {
        let (one, case) = challenged(kind, "a proof, and the next challenger");
        case.stands_still(proof(one), |case| {
            case.step(one.reply_fin(WEB_1), Depends).step(one.syn(), Depends)
        })
        .step(one.later(), Depends)
    });
    at_every_access(Kind::tcp(), |kind| {
        let (one, case) = challenged(kind, "a proof, and the next challenger's proof");
        case.stands_still(proof(one), |case| {
            case.step(one.reply_fin(WEB_1), Depends)
                .step(one.syn(), Depends)
                .step(one.answer(WEB_3), Depends)
                .step(proof(one), Depends)
        })
        .step(one.later(), Depends)
    });
}

#[test]
fn a_connection_that_a_backend_accepts_anew_begins_anew_whoever_speaks_meanwhile() {
    at_every_access(Family::ALL.map(|ip| Kind::new(ip, Protocol::Tcp, Mode::Nat)), |kind| {
        let one = Dialogue::new(kind);
        let another = one.syn_ack(WEB_1).with(|packet| packet.tcp_mut().sequence = 4999);
        let world = World::new(kind).with_one_backend();
        Case::new(format!("{kind}: a SYN-ACK on a closing flow, and an old ACK"), world)
            .establish(one, WEB_1)
            .step(one.fin(), Reaches(WEB_1))
            .step(one.syn(), Reaches(WEB_1))
            .stands_still(another, |case| case.step(one.reply(WEB_1, ACK), Returns))
            .step(one.later(), Reaches(WEB_1))
            .flow(one, &[State::ESTABLISHED])
    });
}
