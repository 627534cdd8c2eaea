//! Packets of a flow whose record has another flow, or another time, when their CPU resumes.

use lb_common::{flow::State, net::Protocol};
use lb_ebpf::packet::tcp::RST;
use tests::{
    case::{Case, Depends, Opens, Reaches, Returns},
    dialogue::Dialogue,
    world::{Kind, WEB_1, World},
};

use crate::{at_every_access, both, lives, proof, the_last_record};

#[test]
fn a_late_answer_does_not_change_the_next_flow_of_the_record() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "the answer of an evicted flow");
        let case = case.step(old.first(), Opens(WEB_1)).after_s(1).preempted(old.answer(WEB_1), |case| {
            case.step(new.first(), Opens(WEB_1)).step(new.answer(WEB_1), Returns)
        });
        lives(case, new)
    });
}

#[test]
fn a_late_packet_does_not_set_the_time_of_the_next_flow() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "an answer that is paused for two minutes");
        let case = case.step(old.first(), Opens(WEB_1)).after_s(1).preempted(old.answer(WEB_1), |case| {
            case.after_s(121).step(new.first(), Opens(WEB_1)).step(new.answer(WEB_1), Returns)
        });
        lives(case, new)
    });
}

#[test]
fn a_late_proof_establishes_no_other_flow() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "the proof of an evicted flow");
        case.step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .after_s(1)
            // Refused, once the old flow is established.
            .preempted(proof(old), |case| case.step(new.first(), Depends))
            .flow_depends(new, &[&[State::HALF_OPEN], &[]])
            .step(new.first(), Depends)
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
    });
}

#[test]
fn a_late_refusal_closes_no_other_flow() {
    at_every_access(Kind::tcp(), |kind| {
        let (old, new, case) = the_last_record(kind, "the refusal of an evicted flow");
        let refusal = old.reply(WEB_1, RST);
        let case = case
            .step(old.first(), Opens(WEB_1))
            .after_s(1)
            .preempted(refusal, |case| case.step(new.first(), Opens(WEB_1)).step(new.answer(WEB_1), Returns));
        lives(case, new)
    });
}

#[test]
fn a_flow_that_other_packets_keep_alive_is_not_expired_by_an_old_time() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        let idle_s = if kind.protocol == Protocol::Tcp { 7000 } else { 280 };
        Case::new(format!("{kind}: a request is paused while others are forwarded"), World::new(kind))
            .establish(one, WEB_1)
            .preempted(one.later(), |case| {
                case.after_s(idle_s)
                    .step(one.later(), Reaches(WEB_1))
                    .after_s(idle_s)
                    .step(one.later(), Reaches(WEB_1))
            })
            .step(one.later(), Reaches(WEB_1))
            .flow(one, &[State::ESTABLISHED])
    });
}

#[test]
fn a_late_reset_resets_no_other_flow() {
    at_every_access(Kind::tcp(), |kind| {
        let (old, new, case) = the_last_record(kind, "a delayed RST");
        case.establish(old, WEB_1)
            .step(old.rst(), Reaches(WEB_1))
            .preempted(old.reply_rst(WEB_1), |case| {
                case.step(new.first(), Opens(WEB_1))
                    .step(new.answer(WEB_1), Returns)
                    .step(proof(new), Reaches(WEB_1))
            })
            .flow(new, &[State::ESTABLISHED])
            .step(new.later_answer(WEB_1), Returns)
    });
}
