//! Packets of a flow whose record has another owner, or another time, when they go on.

use lb_common::{flow::State, net::Protocol};
use lb_ebpf::packet::tcp::RST;
use tests::{
    case::{Case, Depends, Opens, Reaches, Returns},
    dialogue::Dialogue,
    world::{Kind, WEB_1, World},
};

use crate::{at_every_access, both, lives, proof, the_last_record};

#[test]
fn an_answer_that_comes_late_says_nothing_of_the_next_owner() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "the answer of an evicted flow");
        let case = case.step(old.first(), Opens(WEB_1)).after_s(1).stands_still(old.answer(WEB_1), |case| {
            case.step(new.first(), Opens(WEB_1)).step(new.answer(WEB_1), Returns)
        });
        lives(case, new)
    });
}

#[test]
fn the_time_of_a_packet_that_comes_late_is_not_the_next_owners() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "an answer that stands still for two minutes");
        let case = case.step(old.first(), Opens(WEB_1)).after_s(1).stands_still(old.answer(WEB_1), |case| {
            case.after_s(121).step(new.first(), Opens(WEB_1)).step(new.answer(WEB_1), Returns)
        });
        lives(case, new)
    });
}

#[test]
fn a_proof_that_comes_late_promotes_nobody_else() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "the proof of an evicted flow");
        case.step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .after_s(1)
            // Refused, once the old flow is established.
            .stands_still(proof(old), |case| case.step(new.first(), Depends))
            .flow_depends(new, &[&[State::HALF_OPEN], &[]])
            .step(new.first(), Depends)
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
    });
}

#[test]
fn a_refusal_that_comes_late_refuses_nobody_else() {
    at_every_access(Kind::tcp(), |kind| {
        let (old, new, case) = the_last_record(kind, "the refusal of an evicted flow");
        let refusal = old.reply(WEB_1, RST);
        let case = case.step(old.first(), Opens(WEB_1)).after_s(1).stands_still(refusal, |case| {
            case.step(new.first(), Opens(WEB_1)).step(new.answer(WEB_1), Returns)
        });
        lives(case, new)
    });
}

#[test]
fn a_flow_that_others_keep_is_not_ended_by_an_old_look_at_its_time() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        let idle_s = if kind.protocol == Protocol::Tcp { 7000 } else { 280 };
        Case::new(format!("{kind}: a request stands still while others speak"), World::new(kind))
            .establish(one, WEB_1)
            .stands_still(one.later(), |case| {
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
fn a_reset_that_comes_late_resets_nobody_else() {
    at_every_access(Kind::tcp(), |kind| {
        let (old, new, case) = the_last_record(kind, "a delayed RST");
        case.establish(old, WEB_1)
            .step(old.rst(), Reaches(WEB_1))
            .stands_still(old.reply_rst(WEB_1), |case| {
                case.step(new.first(), Opens(WEB_1))
                    .step(new.answer(WEB_1), Returns)
                    .step(proof(new), Reaches(WEB_1))
            })
            .flow(new, &[State::ESTABLISHED])
            .step(new.later_answer(WEB_1), Returns)
    });
}
