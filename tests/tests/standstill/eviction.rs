//! Evicted records and reply tuples.

use lb_common::flow::State;
use tests::{
    case::{Case, Depends, Opens, Reaches, Returns},
    dialogue::Dialogue,
    world::{Kind, WEB_1},
};

use crate::{at_every_access, both, one_port, proof, the_last_record};

#[test]
fn a_flow_that_is_proven_while_its_record_is_chosen_keeps_it() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "a new flow and a proof");
        case.step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .preempted(new.first(), |case| case.step(proof(old), Depends))
            // After the eviction, a datagram opens another flow.
            .flow_depends(old, &[&[State::ESTABLISHED], &[], &[State::HALF_OPEN]])
    });
}

#[test]
fn a_flow_that_is_proven_while_its_port_is_chosen_keeps_it() {
    at_every_access(both(), |kind| {
        let (old, new) = (Dialogue::new(kind), Dialogue::new(kind).client(kind.ip.client(8)));
        Case::new(format!("{kind}: a new flow, one port, and a proof"), one_port(kind))
            .step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .preempted(new.first(), |case| case.step(proof(old), Depends))
            // After the eviction, a datagram opens another flow.
            .flow_depends(old, &[&[State::ESTABLISHED], &[], &[State::HALF_OPEN]])
    });
}

#[test]
fn a_record_that_is_freed_twice_is_not_taken_from_its_next_owner() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "two packets of an expired flow");
        case.step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .after_s(121)
            .preempted(old.later(), |case| {
                case.step(new.first(), Depends).step(new.answer(WEB_1), Depends).step(proof(new), Depends)
            })
            .step(new.first(), Depends)
            .step(new.later(), Depends)
    });
}

#[test]
fn a_preempted_new_flow_evicts_no_record_that_was_used_meanwhile() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "a full bucket, and a new flow with an old time");
        case.establish(old, WEB_1)
            .preempted(new.first(), |case| case.after_s(61).step(old.later(), Reaches(WEB_1)))
            .step(old.later(), Reaches(WEB_1))
    });
}

#[test]
fn a_preempted_new_flow_evicts_no_port_that_was_used_meanwhile() {
    at_every_access(both(), |kind| {
        let (old, new) = (Dialogue::new(kind), Dialogue::new(kind).client(kind.ip.client(8)));
        Case::new(format!("{kind}: one port, and a new flow with an old time"), one_port(kind))
            .establish(old, WEB_1)
            .preempted(new.first(), |case| case.after_s(61).step(old.later(), Reaches(WEB_1)))
            .step(old.later(), Reaches(WEB_1))
    });
}

#[test]
fn a_preempted_new_flow_evicts_no_record_that_was_reset_and_restored_meanwhile() {
    at_every_access(Kind::tcp(), |kind| {
        let (old, new, case) = the_last_record(kind, "a full bucket, a RST, and a new flow");
        case.establish(old, WEB_1)
            .step(old.rst(), Reaches(WEB_1))
            .preempted(new.first(), |case| case.step(old.later_answer(WEB_1), Depends))
            // Restored in time, or evicted before.
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
            .step(new.first(), Depends)
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
    });
}

#[test]
fn a_preempted_new_flow_evicts_no_port_that_was_reset_and_restored_meanwhile() {
    at_every_access(Kind::tcp(), |kind| {
        let (old, new) = (Dialogue::new(kind), Dialogue::new(kind).client(kind.ip.client(8)));
        Case::new(format!("{kind}: one port, a RST, and a new flow"), one_port(kind))
            .establish(old, WEB_1)
            .step(old.reply_rst(WEB_1), Returns)
            .preempted(new.first(), |case| case.step(old.later(), Depends))
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
            .step(new.first(), Depends)
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
    });
}
