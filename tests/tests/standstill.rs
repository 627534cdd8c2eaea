//! A CPU that stands still between any two accesses of the flow table, while others take its record, its tuple, its routes.
//!
//! Each row is run again for every access that its packet makes. What others have begun meanwhile must come to its end,
//! the packet must go to nobody but whom it concerns, and the table must be in order.

use lb_common::{flow::State, net::Protocol, service::Mode, settings::PortPool};
use lb_ebpf::packet::tcp::{ACK, RST};
use tests::{
    case::{self, Case, Depends, Opens, Reaches, Returns},
    dialogue::Dialogue,
    world::{Family, Kind, WEB_1, WEB_2, WEB_3, World},
};

const ANOTHER_MAC: [u8; 6] = [2, 0xff, 0, 0, 0, 1];
const A_THIRD_MAC: [u8; 6] = [2, 0xff, 0, 0, 0, 2];

/// Runs a row of each kind, and tells of all that fail.
fn at_every_access(kinds: impl IntoIterator<Item = Kind>, row: impl Fn(Kind) -> Case) {
    let mut failures = Vec::new();
    for kind in kinds {
        match case::run_at_every_access(&row(kind)) {
            Ok(times) => assert!(times > 10, "{kind}: {times} times"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn both() -> impl Iterator<Item = Kind> {
    Kind::tcp().into_iter().chain(Kind::udp())
}

/// What proves a handshake.
fn proof(dialogue: Dialogue) -> tests::dialogue::Message {
    match dialogue.protocol {
        Protocol::Tcp => dialogue.ack(1),
        Protocol::Udp => dialogue.later(),
    }
}

/// The client whose record is taken, the one who takes it, and a table of eight records in which there is no other.
fn the_last_record(kind: Kind, name: &str) -> (Dialogue, Dialogue, Case) {
    let old = Dialogue::new(kind);
    let new = old.client(kind.ip.client(8));
    let world = World::new(kind).with_one_backend().with_buckets(1);
    let mut case = Case::new(format!("{kind}: {name}"), world);
    for number in 1..8 {
        case = case.establish(old.port(41_000 + number), WEB_1);
    }
    (old, new, case)
}

/// One backend, and one port for all flows.
fn one_port(kind: Kind) -> World {
    World::new(kind).with_one_backend().with(|world| {
        world.ports = PortPool::around(1024, 65_534);
        assert_eq!(world.ports.size(), 1, "{:?}", world.ports);
    })
}

/// A challenger that waits for its proof, in a full table.
fn challenged(kind: Kind, name: &str) -> (Dialogue, Case) {
    let one = Dialogue::new(kind);
    let mut case = Case::new(format!("{kind}: {name}"), World::new(kind).with_buckets(1));
    case = case.establish(one, WEB_1);
    for (number, backend) in (1..7).zip([WEB_2, WEB_3, WEB_1, WEB_2, WEB_3, WEB_1]) {
        case = case.establish(one.port(41_000 + number), backend);
    }
    (one, case.step(one.fin(), Reaches(WEB_1)).step(one.syn(), Opens(WEB_2)).step(one.answer(WEB_2), Returns))
}

/// A flow that began meanwhile is as good as any.
fn lives(case: Case, new: Dialogue) -> Case {
    case.step(proof(new), Reaches(WEB_1))
        .flow(new, &[State::ESTABLISHED])
        .step(new.later_answer(WEB_1), Returns)
        .step(new.later(), Reaches(WEB_1))
}

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
fn a_next_hop_that_is_looked_up_late_is_nobody_elses() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "new routes, and the reply of an evicted flow");
        let case = case
            .step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .after_s(1)
            .change(|world| world.hop_generation += 1)
            .stands_still(old.answer(WEB_1), |case| {
                case.step(new.first(), Opens(WEB_1)).step(new.answer(WEB_1), Returns)
            })
            .and_again(|case| case.step(new.answer(WEB_1), Returns));
        lives(case, new)
    });
}

/// Where the host has not met the client, the flow's own hop is kept: it must be its own.
#[test]
fn a_next_hop_that_is_kept_is_nobody_elses() {
    at_every_access(both(), |kind| {
        let (old, new, case) =
            the_last_record(kind, "new routes, and the reply to a client that was not met");
        let case = case
            .change(move |world| world.learn(old.client.ip(), None))
            .step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .after_s(1)
            .change(|world| world.hop_generation += 1)
            .stands_still(old.answer(WEB_1), |case| {
                case.step(new.first(), Opens(WEB_1)).step(new.answer(WEB_1), Returns)
            })
            .and_again(|case| case.step(new.answer(WEB_1), Returns));
        lives(case, new)
    });
}

#[test]
fn a_flow_that_is_proven_while_its_record_is_chosen_keeps_it() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "a newcomer, and a proof");
        case.step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .stands_still(new.first(), |case| case.step(proof(old), Depends))
            // A datagram begins anew.
            .flow_depends(old, &[&[State::ESTABLISHED], &[], &[State::HALF_OPEN]])
    });
}

#[test]
fn a_flow_that_is_proven_while_its_port_is_chosen_keeps_it() {
    at_every_access(both(), |kind| {
        let (old, new) = (Dialogue::new(kind), Dialogue::new(kind).client(kind.ip.client(8)));
        Case::new(format!("{kind}: a newcomer, one port, and a proof"), one_port(kind))
            .step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .stands_still(new.first(), |case| case.step(proof(old), Depends))
            // A datagram begins anew.
            .flow_depends(old, &[&[State::ESTABLISHED], &[], &[State::HALF_OPEN]])
    });
}

#[test]
fn a_record_that_is_freed_twice_is_not_taken_from_its_next_owner() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "two packets of a flow that is over");
        case.step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .after_s(121)
            .stands_still(old.later(), |case| {
                case.step(new.first(), Depends).step(new.answer(WEB_1), Depends).step(proof(new), Depends)
            })
            .step(new.first(), Depends)
            .step(new.later(), Depends)
    });
}

#[test]
fn a_challenger_that_is_evicted_while_it_is_chosen_leaves_its_packet_to_nobody_else() {
    at_every_access(Kind::tcp(), |kind| {
        let (one, case) = challenged(kind, "a challenger's proof, and a newcomer");
        let new = one.client(kind.ip.client(8));
        case.stands_still(proof(one), |case| case.step(new.first(), Depends)).step(new.first(), Depends)
    });
}

#[test]
fn an_heir_of_the_same_reply_tuple_keeps_its_client() {
    at_every_access(both(), |kind| {
        let (old, new) = (Dialogue::new(kind), Dialogue::new(kind).client(kind.ip.client(8)));
        let case = Case::new(format!("{kind}: new routes, and an heir to the port"), one_port(kind))
            .step(old.first(), Opens(WEB_1))
            .step(old.answer(WEB_1), Returns)
            .after_s(1)
            .change(|world| world.hop_generation += 1)
            .stands_still(old.answer(WEB_1), |case| {
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
            .stands_still(one.later_answer(WEB_1), move |case| {
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
fn routes_that_change_while_a_flow_is_made_are_looked_up_again() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        let client = one.client.ip();
        let case = Case::new(format!("{kind}: routes change under a first packet"), World::new(kind));
        let case = case
            .stands_still(one.first(), |case| {
                case.change(move |world| {
                    world.learn(client, Some(ANOTHER_MAC));
                    world.hop_generation += 1;
                })
            })
            .step(one.answer(WEB_1), Returns);
        lives(case, one)
    });
}

#[test]
fn a_first_packet_that_is_repeated_meanwhile_makes_one_flow() {
    at_every_access(both(), |kind| {
        let one = Dialogue::new(kind);
        Case::new(format!("{kind}: the same first packet on two CPUs"), World::new(kind))
            .stands_still(one.first(), |case| case.step(one.first(), Depends))
            .flow_depends(one, &[&[State::HALF_OPEN], &[]])
            .step(one.first(), Depends)
            .flow(one, &[State::HALF_OPEN])
    });
}

#[test]
fn two_flows_that_are_made_at_once_have_a_reply_tuple_each() {
    at_every_access(both(), |kind| {
        let (one, two) = (Dialogue::new(kind), Dialogue::new(kind).port(40_001));
        Case::new(format!("{kind}: two newcomers and one port"), one_port(kind))
            .stands_still(one.first(), |case| case.step(two.first(), Depends))
            .step(one.first(), Depends)
            .step(two.first(), Depends)
            .records(1)
    });
}

#[test]
fn two_flows_that_are_made_at_once_have_a_record_each() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "two newcomers and one record");
        let case = case.stands_still(old.first(), |case| case.step(new.first(), Depends));
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
            .stands_still(one.first(), |case| {
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
fn a_newcomer_that_stood_still_takes_no_record_whose_flow_spoke_meanwhile() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "a full bucket, and a newcomer's old clock");
        case.establish(old, WEB_1)
            .stands_still(new.first(), |case| case.after_s(61).step(old.later(), Reaches(WEB_1)))
            .step(old.later(), Reaches(WEB_1))
    });
}

#[test]
fn a_newcomer_that_stood_still_takes_no_port_whose_flow_spoke_meanwhile() {
    at_every_access(both(), |kind| {
        let (old, new) = (Dialogue::new(kind), Dialogue::new(kind).client(kind.ip.client(8)));
        Case::new(format!("{kind}: one port, and a newcomer's old clock"), one_port(kind))
            .establish(old, WEB_1)
            .stands_still(new.first(), |case| case.after_s(61).step(old.later(), Reaches(WEB_1)))
            .step(old.later(), Reaches(WEB_1))
    });
}

#[test]
fn a_newcomer_that_stood_still_takes_no_record_that_was_reset_and_restored_meanwhile() {
    at_every_access(Kind::tcp(), |kind| {
        let (old, new, case) = the_last_record(kind, "a full bucket, a RST, and a newcomer");
        case.establish(old, WEB_1)
            .step(old.rst(), Reaches(WEB_1))
            .stands_still(new.first(), |case| case.step(old.later_answer(WEB_1), Depends))
            // Restored in time, or taken before.
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
            .step(new.first(), Depends)
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
    });
}

#[test]
fn a_newcomer_that_stood_still_takes_no_port_that_was_reset_and_restored_meanwhile() {
    at_every_access(Kind::tcp(), |kind| {
        let (old, new) = (Dialogue::new(kind), Dialogue::new(kind).client(kind.ip.client(8)));
        Case::new(format!("{kind}: one port, a RST, and a newcomer"), one_port(kind))
            .establish(old, WEB_1)
            .step(old.reply_rst(WEB_1), Returns)
            .stands_still(new.first(), |case| case.step(old.later(), Depends))
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
            .step(new.first(), Depends)
            .flow_depends(old, &[&[State::ESTABLISHED], &[]])
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
