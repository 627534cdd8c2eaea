//! Flows that are opened at the same time.

use lb_common::flow::State;
use tests::{
    case::{Case, Depends, Reaches, Returns},
    dialogue::Dialogue,
    world::{WEB_1, WEB_2, World},
};

use crate::{at_every_access, both, lives, one_port, proof, the_last_record};

#[test]
fn a_first_packet_that_is_repeated_meanwhile_opens_one_flow() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        Case::new(format!("{kind}: the same first packet on two CPUs"), World::new(kind))
            .preempted(one.first(), |case| case.step(one.first(), Depends))
            .flow_depends(one, &[&[State::HALF_OPEN], &[]])
            .step(one.first(), Depends)
            .flow(one, &[State::HALF_OPEN])
    });
}

#[test]
fn two_flows_that_are_opened_at_once_have_a_reply_tuple_each() {
    at_every_access(both(), |kind| {
        let (one, two) = (Dialogue::new(kind), Dialogue::new(kind).port(40_001));
        Case::new(format!("{kind}: two new flows and one port"), one_port(kind))
            .preempted(one.first(), |case| case.step(two.first(), Depends))
            .step(one.first(), Depends)
            .step(two.first(), Depends)
            .records(1)
    });
}

#[test]
fn two_flows_that_are_opened_at_once_have_a_record_each() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "two new flows and one record");
        let case = case.preempted(old.first(), |case| case.step(new.first(), Depends));
        let case = case.step(new.first(), Depends).step(new.answer(WEB_1), Returns);
        lives(case, new)
    });
}

#[test]
fn a_backend_that_is_taken_away_while_it_is_chosen_leaves_no_flow_behind() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        let two = World::new(kind).with(|world| world.services[0].backends.truncate(2));
        Case::new(format!("{kind}: maint under a first packet"), two)
            .preempted(one.first(), |case| {
                case.change(|world| {
                    world.rest(WEB_1);
                    world.renew(WEB_1);
                })
            })
            .step(one.first(), Depends)
            .step(one.answer(WEB_2), Returns)
            .step(proof(one), Reaches(WEB_2))
            .flow(one, &[State::ESTABLISHED])
    });
}
