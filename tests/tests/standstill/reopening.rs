//! A SYN on the tuple of a flow that is closing.

use lb_common::{flow::State, net::Protocol, service::Mode};
use lb_ebpf::packet::tcp::ACK;
use tests::{
    case::{Case, Depends, Opens, Reaches, Returns},
    dialogue::Dialogue,
    world::{Family, Kind, WEB_1, WEB_2, WEB_3, World},
};

use crate::{at_every_access, both, proof, reopening};

#[test]
fn the_packet_of_a_reopening_flow_that_is_evicted_meanwhile_goes_to_no_other_flow() {
    at_every_access(Kind::tcp(), |kind| {
        let (one, case) = reopening(kind, "the proof of a reopening flow, and a new flow");
        let new = one.client(kind.ip.client(8));
        case.preempted(proof(one), |case| case.step(new.first(), Depends)).step(new.first(), Depends)
    });
}

#[test]
fn a_proof_and_the_closing_flows_fin_may_come_in_any_order() {
    at_every_access(Kind::tcp(), |kind| {
        let one = Dialogue::new(kind);
        Case::new(
            format!("{kind}: a FIN of the closing flow while the reopening one is proven"),
            World::new(kind),
        )
        .establish(one, WEB_1)
        .step(one.fin(), Reaches(WEB_1))
        .step(one.syn(), Opens(WEB_2))
        .step(one.answer(WEB_2), Returns)
        .preempted(proof(one), |case| case.step(one.reply_fin(WEB_1), Depends))
        .step(one.later(), Reaches(WEB_2))
        .flow(one, &[State::ESTABLISHED])
    });
}

#[test]
fn a_late_first_packet_reopens_no_flow_that_is_not_closing() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        let world = World::new(kind).with_one_backend();
        Case::new(format!("{kind}: a first packet, repeated and proven meanwhile"), world)
            .preempted(one.first(), |case| {
                case.step(one.first(), Depends).step(one.answer(WEB_1), Depends).step(proof(one), Depends)
            })
            .flow_depends(one, &[&[State::ESTABLISHED], &[State::HALF_OPEN], &[]])
    });
}

#[test]
fn a_late_proof_retires_only_its_own_closing_flow() {
    at_every_access(Kind::tcp(), |kind| {
        let (one, case) = reopening(kind, "a proof, and the next reopening flow");
        case.preempted(proof(one), |case| case.step(one.reply_fin(WEB_1), Depends).step(one.syn(), Depends))
            .step(one.later(), Depends)
    });
    at_every_access(Kind::tcp(), |kind| {
        let (one, case) = reopening(kind, "a proof, and the proof of the next reopening flow");
        case.preempted(proof(one), |case| {
            case.step(one.reply_fin(WEB_1), Depends)
                .step(one.syn(), Depends)
                .step(one.answer(WEB_3), Depends)
                .step(proof(one), Depends)
        })
        .step(one.later(), Depends)
    });
}

#[test]
fn a_flow_whose_backend_accepts_a_syn_restarts_whatever_is_sent_meanwhile() {
    at_every_access(Family::ALL.map(|ip| Kind::new(ip, Protocol::Tcp, Mode::Nat)), |kind| {
        let one = Dialogue::new(kind);
        let another = one.syn_ack(WEB_1).with(|packet| packet.tcp_mut().sequence = 4999);
        let world = World::new(kind).with_one_backend();
        Case::new(format!("{kind}: a SYN-ACK on a closing flow, and an old ACK"), world)
            .establish(one, WEB_1)
            .step(one.fin(), Reaches(WEB_1))
            .step(one.syn(), Reaches(WEB_1))
            .preempted(another, |case| case.step(one.reply(WEB_1, ACK), Returns))
            .step(one.later(), Reaches(WEB_1))
            .flow(one, &[State::ESTABLISHED])
    });
}
