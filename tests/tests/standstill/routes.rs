//! Next hops that are looked up or kept while others change them.

use tests::{
    case::{Case, Opens, Returns},
    dialogue::Dialogue,
    world::{WEB_1, World},
};

use crate::{at_every_access, both, lives, one_port, the_last_record};

const ANOTHER_MAC: [u8; 6] = [2, 0xff, 0, 0, 0, 1];
const A_THIRD_MAC: [u8; 6] = [2, 0xff, 0, 0, 0, 2];

#[test]
fn a_next_hop_that_is_looked_up_late_is_written_to_no_other_flow() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "new routes, and the reply of an evicted flow");
        lives(replaced_during_a_lookup(case, old, new), new)
    });
}

/// Without a neighbour entry of the client, the flow keeps its hop, which must not come from another flow.
#[test]
fn a_next_hop_that_is_kept_is_written_to_no_other_flow() {
    at_every_access(both(), |kind| {
        let (old, new, case) =
            the_last_record(kind, "new routes, and the reply to a client without neighbour entry");
        let case = case.change(move |world| world.learn(old.client.ip(), None));
        lives(replaced_during_a_lookup(case, old, new), new)
    });
}

#[test]
fn the_next_flow_with_the_same_reply_tuple_keeps_its_client() {
    at_every_access(both(), |kind| {
        let (old, new) = (Dialogue::new(kind), Dialogue::new(kind).client(kind.ip.client(8)));
        let case = Case::new(format!("{kind}: new routes, and the next flow of the port"), one_port(kind))
            .step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .after_s(1)
            .change(|world| world.hop_generation += 1)
            .preempted(old.answer(WEB_1), |case| {
                case.step(new.first(), Opens(WEB_1)).flow(old, &[]).step(new.answer(WEB_1), Returns)
            });
        lives(case, new)
    });
}

#[test]
fn routes_that_change_while_a_reply_looks_them_up_are_looked_up_again() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        let client = one.client.ip();
        Case::new(format!("{kind}: routes change twice"), World::new(kind))
            .establish(one, WEB_1)
            .change(move |world| {
                world.learn(client, Some(ANOTHER_MAC));
                world.hop_generation += 1;
            })
            .preempted(one.later_answer(WEB_1), move |case| {
                case.change(move |world| {
                    world.learn(client, Some(A_THIRD_MAC));
                    world.hop_generation += 1;
                })
                .step(one.later_answer(WEB_1), Returns)
            })
            .step(one.later_answer(WEB_1), Returns)
            .step(one.later_answer(WEB_1), Returns)
    });
}

#[test]
fn routes_that_change_while_a_flow_is_opened_are_looked_up_again() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        let client = one.client.ip();
        let case = Case::new(format!("{kind}: routes change under a first packet"), World::new(kind));
        let case = case
            .preempted(one.first(), |case| {
                case.change(move |world| {
                    world.learn(client, Some(ANOTHER_MAC));
                    world.hop_generation += 1;
                })
            })
            .step(one.answer(WEB_1), Returns);
        lives(case, one)
    });
}

/// A flow is opened; routes change; and while a reply looks up its next hop, another flow takes the record.
fn replaced_during_a_lookup(case: Case, old: Dialogue, new: Dialogue) -> Case {
    case.step(old.first(), Opens(WEB_1))
        .step(old.answer(WEB_1), Returns)
        .after_s(1)
        .change(|world| world.hop_generation += 1)
        .preempted(old.answer(WEB_1), |case| {
            case.step(new.first(), Opens(WEB_1)).step(new.answer(WEB_1), Returns)
        })
        .and_again(|case| case.step(new.answer(WEB_1), Returns))
}
