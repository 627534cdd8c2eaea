//! Refusals, retries and probes of ejected backends, at the same time as other packets.

use anyhow::{Result, ensure};
use lb_common::{
    ejection::{Ejection, FAILURES},
    flow::State,
    net::Protocol,
    reason::Reason,
};
use tests::{
    case::{Case, Depends, Drops, Opens, Returns},
    dialogue::{Dialogue, Message, flow},
    engine::{MAX_IDS, Memory},
    world::{Kind, WEB_1, WEB_2, WEB_3, World},
};

use crate::at_every_access;

const RETRIED: State = State::HALF_OPEN.after_retries(1);
const REFUSED: State = State::HALF_OPEN.refused();

fn every_tcp() -> impl Iterator<Item = Kind> {
    Kind::all().into_iter().filter(|kind| kind.protocol == Protocol::Tcp)
}

/// A client's SYN went to a backend, of a service that retries.
fn waiting(kind: Kind, name: &str) -> (Dialogue, Case) {
    let one = Dialogue::new(kind);
    let world = World::new(kind).with(|world| world.services[0].retries = true);
    (one, Case::new(format!("{kind}: {name}"), world).step(one.syn(), Opens(WEB_1)))
}

/// The backend has refused it.
fn refused(kind: Kind, name: &str) -> (Dialogue, Case) {
    let (one, case) = waiting(kind, name);
    (one, case.step(one.reply_rst(WEB_1), Drops(Reason::Retried)))
}

/// Whichever backend the flow has by now: its client connects.
fn connects(mut case: Case, one: Dialogue) -> Case {
    case = case.step(one.syn(), Depends);
    for name in [WEB_1, WEB_2, WEB_3] {
        case = case.step(one.syn_ack(name), Depends);
    }
    case.step(one.ack(1), Depends).flow(one, &[State::ESTABLISHED]).records(1)
}

#[test]
fn a_refused_clients_syn_that_is_repeated_meanwhile_opens_one_flow() {
    at_every_access(every_tcp(), |kind| {
        let (one, case) = refused(kind, "a refused client's SYN on two CPUs");
        let case = case
            .preempted(one.syn(), |case| case.step(one.syn(), Depends))
            .flow_depends(one, &[&[RETRIED], &[State::HALF_OPEN], &[]]);
        connects(case, one)
    });
}

#[test]
fn a_refused_clients_syn_opens_one_flow_whatever_its_first_backend_sends_meanwhile() {
    let replies: [fn(Dialogue) -> Message; 2] = [|one| one.syn_ack(WEB_1), |one| one.reply_rst(WEB_1)];
    for reply in replies {
        at_every_access(every_tcp(), |kind| {
            let (one, case) = refused(kind, "a refused client's SYN, and a late reply");
            let case = case
                .preempted(one.syn(), |case| case.step(reply(one), Depends))
                .flow_depends(one, &[&[RETRIED], &[State::HALF_OPEN]]);
            connects(case, one)
        });
        at_every_access(every_tcp(), |kind| {
            let (one, case) = refused(kind, "a late reply, and a refused client's SYN");
            let case = case
                .preempted(reply(one), |case| case.step(one.syn(), Depends))
                .flow_depends(one, &[&[RETRIED], &[State::HALF_OPEN]]);
            connects(case, one)
        });
    }
}

#[test]
fn a_refusal_and_the_clients_packets_may_come_in_any_order() {
    let requests: [fn(Dialogue) -> Message; 3] = [Dialogue::syn, Dialogue::fin, Dialogue::rst];
    for request in requests {
        at_every_access(every_tcp(), |kind| {
            let (one, case) = waiting(kind, "a refusal, and a packet of the client");
            let case = case
                .preempted(one.reply_rst(WEB_1), |case| case.step(request(one), Depends))
                .flow_depends(one, &[&[REFUSED], &[RETRIED], &[]]);
            connects(case, one)
        });
        at_every_access(every_tcp(), |kind| {
            let (one, case) = waiting(kind, "a packet of the client, and a refusal");
            let case = case
                .preempted(request(one), |case| case.step(one.reply_rst(WEB_1), Depends))
                .flow_depends(one, &[&[REFUSED], &[RETRIED], &[]]);
            connects(case, one)
        });
    }
}

#[test]
fn a_refusal_while_its_flow_expires_or_loses_its_backend_leaves_one_flow() {
    let ends: [fn(Case) -> Case; 2] =
        [|case| case.after_s(121), |case| case.change(|world| world.renew(WEB_1))];
    for end in ends {
        at_every_access(every_tcp(), |kind| {
            let (one, case) = waiting(kind, "the refusal of a flow that ends");
            let case = case.preempted(one.reply_rst(WEB_1), |case| end(case).step(one.syn(), Depends));
            connects(case, one)
        });
        at_every_access(every_tcp(), |kind| {
            let (one, case) = refused(kind, "a refused client's SYN, and its flow ends");
            connects(case.preempted(one.syn(), end), one)
        });
    }
}

/// Half of the backends may be ejected. Two of three flows get the first one.
fn ejecting(kind: Kind, name: &str) -> Case {
    let world = World::new(kind).with_flows(64).with(|world| {
        let service = &mut world.services[0];
        (service.ejects, service.slots) = (true, Some(vec![0, 0, 1]));
        service.backends.truncate(2);
    });
    Case::new(format!("{kind}: {name}"), world)
}

/// Two rounds of flows, and all but the last one of those that ejects the first backend have been refused. Returns the
/// last two.
fn about_to_be_ejected(kind: Kind, name: &str) -> (Dialogue, Dialogue, Case) {
    let mut case = ejecting(kind, name);
    for (number, backend) in (0..).zip([WEB_1, WEB_1, WEB_2, WEB_1, WEB_1, WEB_2]) {
        case = case.step(flow(kind, number).syn(), Opens(backend));
    }
    for number in 0..FAILURES as u16 - 1 {
        case = case.step(flow(kind, number).reply_rst(WEB_1), Returns);
    }
    (flow(kind, 3), flow(kind, 4), case)
}

fn ejection(world: &World, memory: &Memory, name: &str) -> Ejection {
    Ejection(memory.loads[world.find(name).id.place(MAX_IDS) as usize].1)
}

#[test]
fn two_failures_at_once_eject_a_backend_once() {
    at_every_access(every_tcp(), |kind| {
        let (one, two, case) = about_to_be_ejected(kind, "two refusals");
        case.preempted(one.reply_rst(WEB_1), |case| case.step(two.reply_rst(WEB_1), Returns)).holds(
            |world, memory| {
                ensure!(ejection(world, memory, WEB_1).is_ejected(), "it is not ejected");
                Ok(())
            },
        )
    });
}

#[test]
fn of_two_backends_that_fail_at_once_one_is_ejected() {
    at_every_access(every_tcp(), |kind| {
        let (one, _, mut case) = about_to_be_ejected(kind, "two backends are refused for the last time");
        for number in [2, 5] {
            case = case.step(flow(kind, number).reply_rst(WEB_2), Returns);
        }
        let other = flow(kind, 8);
        case = case
            .step(flow(kind, 6).syn(), Opens(WEB_1))
            .step(flow(kind, 7).syn(), Opens(WEB_1))
            .step(other.syn(), Opens(WEB_2));
        case.preempted(one.reply_rst(WEB_1), |case| case.step(other.reply_rst(WEB_2), Returns))
    });
}

#[test]
fn an_answer_and_the_failure_that_ejects_its_backend_may_come_in_any_order() {
    at_every_access(every_tcp(), |kind| {
        let (one, two, case) = about_to_be_ejected(kind, "a refusal, and an answer");
        case.preempted(one.reply_rst(WEB_1), |case| case.step(two.syn_ack(WEB_1), Returns))
    });
    at_every_access(every_tcp(), |kind| {
        let (one, two, case) = about_to_be_ejected(kind, "an answer, and a refusal");
        case.preempted(two.syn_ack(WEB_1), |case| case.step(one.reply_rst(WEB_1), Returns))
    });
}

#[test]
fn of_two_flows_that_are_opened_at_once_one_probes_an_ejected_backend() {
    at_every_access(every_tcp(), |kind| {
        let (last, _, case) = about_to_be_ejected(kind, "two flows, and an ejected backend");
        case.step(last.reply_rst(WEB_1), Returns)
            .after_s(2)
            .preempted(flow(kind, 6).syn(), |case| case.step(flow(kind, 7).syn(), Depends))
            .holds(one_flow_probes)
    });
}

/// The fifth flow of the two rounds waits for the backend, too.
fn one_flow_probes(world: &World, memory: &Memory) -> Result<()> {
    let id = world.find(WEB_1).id;
    let probes =
        memory.flows.iter().filter(|it| it.owner.backend() == id && it.control.state().is_half_open());
    let probes = probes.count() - 1;
    ensure!(probes == 1 && ejection(world, memory, WEB_1).is_ejected(), "{probes} flows probe it");
    Ok(())
}

#[test]
fn a_late_reply_does_not_count_for_the_backend_of_the_records_next_flow() {
    let replies: [fn(Dialogue) -> Message; 2] = [|old| old.reply_rst(WEB_1), |old| old.syn_ack(WEB_1)];
    for reply in replies {
        at_every_access(every_tcp(), |kind| {
            let (old, case) = full(kind, "a reply to an evicted flow, and a refusal of the next one");
            let new = flow(kind, 100);
            case.preempted(reply(old), |case| {
                case.step(new.syn(), Opens(WEB_2)).step(new.reply_rst(WEB_2), Returns)
            })
            .holds(|world, memory| {
                let failures = ejection(world, memory, WEB_2).failures();
                ensure!(failures == 1, "{failures} failures are counted");
                Ok(())
            })
        });
    }
}

/// A half-open flow of the first backend in a full table. The next flow evicts it and gets the second backend.
fn full(kind: Kind, name: &str) -> (Dialogue, Case) {
    let world = World::new(kind).with_buckets(1).with(|world| {
        world.services[0].ejects = true;
        world.services[0].backends.truncate(2);
    });
    let mut case = Case::new(format!("{kind}: {name}"), world);
    for (number, backend) in (0..8).zip([WEB_1, WEB_2].into_iter().cycle()) {
        case = match number {
            0 => case.step(flow(kind, 0).syn(), Opens(backend)),
            _ => case.establish(flow(kind, number), backend),
        };
    }
    // The turn of the second one, which has answered no client for a second.
    (flow(kind, 0), case.after_s(1).change(|world| world.rest(WEB_1)))
}
