//! Preempts a CPU between any two accesses to the flow table, while other CPUs reuse its record or reply tuple, or
//! routes change.
//!
//! Each row runs once for every access that its packet makes. Flows that others open meanwhile must work, the packet
//! must reach only the endpoints of its own flow, and the table must be consistent.

mod eviction;
mod expiry;
mod late;
mod new_flows;
mod refusals;
mod reopening;
mod routes;

use lb_common::{flow::State, net::Protocol, settings::PortPool};
use tests::{
    case::{self, Case, Opens, Reaches, Returns},
    dialogue::Dialogue,
    world::{Kind, WEB_1, WEB_2, WEB_3, World},
};

/// Runs a row of each kind, and reports all that fail.
pub fn at_every_access(kinds: impl IntoIterator<Item = Kind>, row: impl Fn(Kind) -> Case) {
    let mut failures = Vec::new();
    for kind in kinds {
        match case::run_at_every_access(&row(kind)) {
            Ok(times) => assert!(times > 10, "{kind}: {times} times"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

pub fn both() -> impl Iterator<Item = Kind> {
    Kind::tcp().into_iter().chain(Kind::udp())
}

/// What proves a handshake.
pub fn proof(dialogue: Dialogue) -> tests::dialogue::Message {
    match dialogue.protocol {
        Protocol::Tcp => dialogue.ack(1),
        Protocol::Udp => dialogue.later(),
    }
}

/// Two clients that compete for the last free record of a table of eight.
pub fn the_last_record(kind: Kind, name: &str) -> (Dialogue, Dialogue, Case) {
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
pub fn one_port(kind: Kind) -> World {
    World::new(kind).with_one_backend().with(|world| {
        world.ports = PortPool::around(1024, 65_534);
        assert_eq!(world.ports.size(), 1, "{:?}", world.ports);
    })
}

/// A reopening flow that is not proven yet, in a full table.
pub fn reopening(kind: Kind, name: &str) -> (Dialogue, Case) {
    let one = Dialogue::new(kind);
    let mut case = Case::new(format!("{kind}: {name}"), World::new(kind).with_buckets(1));
    case = case.establish(one, WEB_1);
    for (number, backend) in (1..7).zip([WEB_2, WEB_3, WEB_1, WEB_2, WEB_3, WEB_1]) {
        case = case.establish(one.port(41_000 + number), backend);
    }
    (one, case.step(one.fin(), Reaches(WEB_1)).step(one.syn(), Opens(WEB_2)).step(one.answer(WEB_2), Returns))
}

/// The flow that was opened meanwhile works.
pub fn lives(case: Case, new: Dialogue) -> Case {
    case.step(proof(new), Reaches(WEB_1))
        .flow(new, &[State::ESTABLISHED])
        .step(new.later_answer(WEB_1), Returns)
        .step(new.later(), Reaches(WEB_1))
}
