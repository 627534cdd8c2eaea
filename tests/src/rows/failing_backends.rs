//! Backends that refuse or do not answer new flows: retries and passive ejection.

use lb_common::{ejection::FAILURES, flow::State, net::Protocol, reason::Reason, service::Mode};

use crate::{
    case::{Case, Drops, Opens, Reaches, Resets, Returns},
    dialogue::flow,
    world::{Kind, WEB_1, WEB_2, WEB_3, World},
};

const REFUSED: State = State::HALF_OPEN.refused();

/// Every kind of TCP.
pub fn rows() -> Vec<Case> {
    let kinds = Kind::all().into_iter().filter(|kind| kind.protocol == Protocol::Tcp);
    let mut rows = Vec::new();
    for kind in kinds {
        rows.extend(retries(kind));
        rows.extend(ejections(kind));
        rows.extend(probes(kind));
        if kind.mode == Mode::FullNat {
            rows.extend(forgeries(kind));
        }
    }
    rows
}

/// A refused client gets another backend.
fn retrying(kind: Kind) -> World {
    World::new(kind).with(|world| world.services[0].retries = true)
}

/// Up to half of the backends are ejected.
fn ejecting(kind: Kind) -> World {
    World::new(kind).with(|world| world.services[0].ejects = true)
}

fn retries(kind: Kind) -> Vec<Case> {
    let one = flow(kind, 0);
    let refused_once = |name: &str| {
        Case::new(format!("{kind}: {name}"), retrying(kind))
            .step(one.syn(), Opens(WEB_1))
            .step(one.reply_rst(WEB_1), Drops(Reason::Retried))
            .flow(one, &[REFUSED])
    };
    let retried = |retries| State::HALF_OPEN.after_retries(retries);
    vec![
        refused_once("a refusal is hidden from the client, whose next SYN goes to another backend")
            .step(one.reply_rst(WEB_1), Drops(Reason::Retried))
            .step(one.syn(), Opens(WEB_2))
            .flow(one, &[retried(1)])
            .step(one.syn_ack(WEB_2), Returns)
            .step(one.ack(1), Reaches(WEB_2))
            .flow(one, &[State::ESTABLISHED])
            .records(1),
        refused_once("a client that two backends have refused receives the third refusal")
            .step(one.syn(), Opens(WEB_2))
            .step(one.reply_rst(WEB_2), Drops(Reason::Retried))
            .step(one.syn(), Opens(WEB_3))
            .flow(one, &[retried(2)])
            .step(one.reply_rst(WEB_3), Returns)
            .step(one.syn(), Opens(WEB_1))
            .step(one.syn_ack(WEB_1), Returns),
        refused_once("a refused client does not get the same backend again, even if it is its turn")
            .step(flow(kind, 1).syn(), Opens(WEB_2))
            .step(flow(kind, 2).syn(), Opens(WEB_3))
            .step(one.syn(), Opens(WEB_2)),
        refused_once("a backend that answers after all has not refused: the RST was forged")
            .step(one.syn_ack(WEB_1), Returns)
            .flow(one, &[State::HALF_OPEN])
            .step(one.ack(1), Reaches(WEB_1))
            .flow(one, &[State::ESTABLISHED]),
        refused_once("a packet other than a SYN opens no flow to another backend")
            .step(one.data(), Resets(Reason::NoFlow))
            .flow(one, &[]),
        refused_once("a client that gives up leaves nothing behind")
            .after_s(121)
            .step(one.syn(), Opens(WEB_2))
            .records(1),
        Case::new(
            format!("{kind}: a service with one backend passes the refusal to the client"),
            retrying(kind).with_one_backend(),
        )
        .step(one.syn(), Opens(WEB_1))
        .step(one.reply_rst(WEB_1), Returns),
        Case::new(
            format!("{kind}: with on_refused = pass, the client receives the refusal"),
            World::new(kind),
        )
        .step(one.syn(), Opens(WEB_1))
        .step(one.reply_rst(WEB_1), Returns)
        .step(one.syn(), Opens(WEB_2)),
        Case::new(format!("{kind}: a RST after the SYN-ACK is not a refusal"), retrying(kind))
            .step(one.syn(), Opens(WEB_1))
            .step(one.syn_ack(WEB_1), Returns)
            .step(one.reply_rst(WEB_1), Returns),
        Case::new(
            format!("{kind}: a refused reopening flow gets another backend, and the closing flow stays"),
            retrying(kind),
        )
        .establish(one, WEB_1)
        .step(one.fin(), Reaches(WEB_1))
        .step(one.syn(), Opens(WEB_2))
        .step(one.reply_rst(WEB_2), Drops(Reason::Retried))
        .step(one.later_answer(WEB_1), Returns)
        .step(one.syn(), Opens(WEB_3))
        .step(one.syn_ack(WEB_3), Returns)
        .step(one.ack(1), Reaches(WEB_3))
        .flow(one, &[State::ESTABLISHED]),
    ]
}

/// Makes the backend refuse often enough, while the others accept.
fn eject(mut case: Case, kind: Kind, backend: &'static str) -> Case {
    for number in 0..FAILURES as u16 {
        case = case
            .step(flow(kind, 100 + number).syn(), Opens(backend))
            .step(flow(kind, 100 + number).reply_rst(backend), Returns)
            .step(flow(kind, 200 + number).syn(), Opens(WEB_2))
            .step(flow(kind, 200 + number).syn_ack(WEB_2), Returns)
            .step(flow(kind, 300 + number).syn(), Opens(WEB_3))
            .step(flow(kind, 300 + number).syn_ack(WEB_3), Returns);
    }
    case
}

fn ejections(kind: Kind) -> Vec<Case> {
    let case = |name: &str| Case::new(format!("{kind}: {name}"), ejecting(kind).with_flows(64));
    let silent = |mut case: Case, wait| {
        for number in 0..FAILURES as u16 {
            case = case
                .step(flow(kind, number).syn(), Opens(WEB_1))
                .step(flow(kind, 200 + number).syn(), Opens(WEB_2))
                .step(flow(kind, 300 + number).syn(), Opens(WEB_3));
        }
        case = case.after_s(wait);
        for number in 0..FAILURES as u16 - 1 {
            case = case.step(flow(kind, number).syn(), Reaches(WEB_1));
        }
        case
    };
    let last = flow(kind, FAILURES as u16 - 1);
    let mut ignored = case("SYNs that a backend ignores do not eject it if it answers other clients");
    for number in 0..FAILURES as u16 {
        ignored = ignored
            .step(flow(kind, number).syn(), Opens(WEB_1))
            .step(flow(kind, 200 + number).syn(), Opens(WEB_2))
            .step(flow(kind, 300 + number).syn(), Opens(WEB_3));
    }
    ignored = ignored
        .step(flow(kind, 90).syn(), Opens(WEB_1))
        .step(flow(kind, 90).syn_ack(WEB_1), Returns)
        .after_s(1);
    for number in 0..FAILURES as u16 {
        ignored = ignored.step(flow(kind, number).syn(), Reaches(WEB_1));
    }
    let answers = case("refusals do not eject a backend that has answered another client within a second")
        .step(flow(kind, 90).syn(), Opens(WEB_1))
        .step(flow(kind, 91).syn(), Opens(WEB_2))
        .step(flow(kind, 92).syn(), Opens(WEB_3))
        .step(flow(kind, 90).syn_ack(WEB_1), Returns);
    let alive = eject(answers, kind, WEB_1).step(flow(kind, 93).syn(), Opens(WEB_1));
    vec![
        alive,
        eject(case("a backend that refuses three times in a row is ejected"), kind, WEB_1)
            .step(flow(kind, 0).syn(), Opens(WEB_2))
            .step(flow(kind, 1).syn(), Opens(WEB_2))
            .step(flow(kind, 2).syn(), Opens(WEB_3))
            .step(flow(kind, 3).syn(), Opens(WEB_2)),
        eject(
            case("an ejected backend keeps its flows")
                .establish(flow(kind, 0), WEB_1)
                .establish(flow(kind, 1), WEB_2)
                .establish(flow(kind, 2), WEB_3)
                .after_s(1),
            kind,
            WEB_1,
        )
        .step(flow(kind, 0).data(), Reaches(WEB_1))
        .step(flow(kind, 0).later_answer(WEB_1), Returns)
        .step(flow(kind, 3).syn(), Opens(WEB_2)),
        silent(case("a backend that leaves three SYNs unanswered for a second is ejected"), 1)
            .step(last.syn(), Opens(WEB_2))
            .step(flow(kind, 50).syn(), Opens(WEB_2)),
        silent(case("SYNs that are repeated at once eject nothing"), 0)
            .step(last.syn(), Reaches(WEB_1))
            .step(flow(kind, 50).syn(), Opens(WEB_1)),
        ignored
            .step(flow(kind, 50).syn(), Opens(WEB_2))
            .step(flow(kind, 51).syn(), Opens(WEB_3))
            .step(flow(kind, 52).syn(), Opens(WEB_1)),
        case("a success between them starts the count of failures again from zero")
            .step(flow(kind, 0).syn(), Opens(WEB_1))
            .step(flow(kind, 0).reply_rst(WEB_1), Returns)
            .change(|world| [WEB_2, WEB_3].iter().for_each(|name| world.rest(name)))
            .change(|world| world.find_mut(WEB_2).accepts = true)
            .step(flow(kind, 1).syn(), Opens(WEB_2))
            .step(flow(kind, 2).syn(), Opens(WEB_1))
            .step(flow(kind, 2).reply_rst(WEB_1), Returns)
            .step(flow(kind, 3).syn(), Opens(WEB_2))
            .step(flow(kind, 4).syn(), Opens(WEB_1))
            .step(flow(kind, 4).syn_ack(WEB_1), Returns)
            .step(flow(kind, 5).syn(), Opens(WEB_2))
            .step(flow(kind, 6).syn(), Opens(WEB_1))
            .step(flow(kind, 6).reply_rst(WEB_1), Returns)
            .step(flow(kind, 7).syn(), Opens(WEB_2))
            .step(flow(kind, 8).syn(), Opens(WEB_1)),
    ]
}

fn probes(kind: Kind) -> Vec<Case> {
    let case = |name: &str| Case::new(format!("{kind}: {name}"), ejecting(kind).with_flows(64));
    let ejected = |name: &str| eject(case(name), kind, WEB_1);
    let probe = flow(kind, 0);
    vec![
        ejected("after a second, one flow probes an ejected backend, and its answer brings it back")
            .after_s(2)
            .step(probe.syn(), Opens(WEB_1))
            .step(flow(kind, 1).syn(), Opens(WEB_2))
            .step(flow(kind, 2).syn(), Opens(WEB_3))
            .step(flow(kind, 3).syn(), Opens(WEB_2))
            .step(probe.syn_ack(WEB_1), Returns)
            .step(flow(kind, 4).syn(), Opens(WEB_2))
            .step(flow(kind, 5).syn(), Opens(WEB_3))
            .step(flow(kind, 6).syn(), Opens(WEB_1)),
        ejected("a probe that is not answered moves to another backend when its client repeats its SYN")
            .after_s(2)
            .step(probe.syn(), Opens(WEB_1))
            .after_s(1)
            .step(probe.syn(), Opens(WEB_2))
            .step(flow(kind, 1).syn(), Opens(WEB_3))
            .step(flow(kind, 2).syn(), Opens(WEB_2))
            .after_s(2)
            .step(flow(kind, 3).syn(), Opens(WEB_2))
            .step(flow(kind, 4).syn(), Opens(WEB_3))
            .step(flow(kind, 5).syn(), Opens(WEB_1)),
        ejected("a probe whose SYN is duplicated on the way stays with its backend")
            .after_s(2)
            .step(probe.syn(), Opens(WEB_1))
            .step(probe.syn(), Reaches(WEB_1))
            .step(probe.syn_ack(WEB_1), Returns)
            .step(flow(kind, 1).syn(), Opens(WEB_2))
            .step(flow(kind, 2).syn(), Opens(WEB_3))
            .step(flow(kind, 3).syn(), Opens(WEB_1)),
        ejected("at most half of the backends are ejected")
            .change(|world| world.rest(WEB_3))
            .change(|world| world.find_mut(WEB_3).accepts = true)
            .step(flow(kind, 1).syn(), Opens(WEB_2))
            .step(flow(kind, 1).reply_rst(WEB_2), Returns)
            .step(flow(kind, 2).syn(), Opens(WEB_2))
            .step(flow(kind, 2).reply_rst(WEB_2), Returns)
            .step(flow(kind, 3).syn(), Opens(WEB_3))
            .step(flow(kind, 4).syn(), Opens(WEB_2))
            .step(flow(kind, 4).reply_rst(WEB_2), Returns)
            .step(flow(kind, 5).syn(), Opens(WEB_2)),
    ]
}

/// What a client can forge ejects no backend.
fn forgeries(kind: Kind) -> Vec<Case> {
    let mut rows = Vec::new();
    let mut syns = Case::new(
        format!("{kind}: SYNs that are repeated after a second, but were answered, eject nothing"),
        ejecting(kind).with_flows(64),
    );
    let all = [WEB_1, WEB_2, WEB_3];
    for number in 0..12u16 {
        let backend = all[usize::from(number) % 3];
        syns = syns
            .step(flow(kind, number).syn(), Opens(backend))
            .step(flow(kind, number).syn_ack(backend), Returns);
    }
    syns = syns.after_s(1);
    for number in 0..12u16 {
        syns = syns.step(flow(kind, number).syn(), Reaches(all[usize::from(number) % 3]));
    }
    rows.push(syns.step(flow(kind, 50).syn(), Opens(WEB_1)).step(flow(kind, 51).syn(), Opens(WEB_2)));

    let mut resets = Case::new(
        format!("{kind}: RSTs that do not acknowledge the client's SYN eject nothing, and are forwarded"),
        ejecting(kind).with(|world| world.services[0].retries = true).with_flows(64),
    );
    for number in 0..12u16 {
        let (one, backend) = (flow(kind, number), all[usize::from(number) % 3]);
        let forged = one.reply_rst(backend).with(|packet| packet.tcp_mut().acknowledgement -= 1);
        resets = resets.step(one.syn(), Opens(backend)).step(forged, Returns).flow(one, &[State::HALF_OPEN]);
    }
    rows.push(resets.step(flow(kind, 50).syn(), Opens(WEB_1)).step(flow(kind, 51).syn(), Opens(WEB_2)));
    rows
}
