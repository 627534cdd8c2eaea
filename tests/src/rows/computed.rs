//! TCP segments of flows that another node may know: the backend follows from the tuple, and its answer confirms it.

use lb_common::{flow::State, net::Protocol, pool::Picker, quiet::Quiet, reason::Reason, service::Mode};
use lb_ebpf::{
    packet::tcp::{ACK, FIN, RST, SYN},
    table::hash::reduce,
};

use super::scheduling::source_hash;
use crate::{
    case::{Case, Drops, Opens, Passes, Reaches, Resets, Returns},
    dialogue::{Dialogue, flow},
    world::{Family, HASH_KEYS, Kind, WEBS, World},
};

const HALF_OPEN: &[State] = &[State::HALF_OPEN];
const ESTABLISHED: &[State] = &[State::ESTABLISHED];

/// TCP over both families with nat.
pub fn rows() -> Vec<Case> {
    let kinds = Family::ALL.map(|ip| Kind::new(ip, Protocol::Tcp, Mode::Nat));
    kinds
        .into_iter()
        .flat_map(|kind| {
            let hashed = [Picker::FlowHash, Picker::SourceHash].map(|picker| by_picker(kind, picker));
            hashed.into_iter().chain(from_client(kind)).chain(from_backend(kind)).chain(refused(kind))
        })
        .collect()
}

/// A service whose flows another node can compute.
fn computing(kind: Kind) -> World {
    World::new(kind).with(|world| {
        (world.services[0].picker, world.services[0].computes) = (Picker::FlowHash, true);
    })
}

/// The backend that is computed for a dialogue.
fn backend_of(one: Dialogue) -> &'static str {
    WEBS[reduce(one.hash_by(&HASH_KEYS) as u32, WEBS.len() as u32) as usize]
}

fn by_picker(kind: Kind, picker: Picker) -> Case {
    let world = computing(kind).with(|world| world.services[0].picker = picker);
    let case = Case::new(format!("{kind}: the computed backend is that of a new flow ({picker:?})"), world);
    (0..6).fold(case, |case, number| {
        let one = flow(kind, number).client(kind.ip.client(number as u8 + 1));
        let by_source = WEBS[reduce(source_hash(one.client.ip()) as u32, WEBS.len() as u32) as usize];
        let backend = if picker == Picker::SourceHash { by_source } else { backend_of(one) };
        case.step(one.data(), Reaches(backend)).step(one.syn(), Opens(backend))
    })
}

fn from_client(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let backend = backend_of(one);
    let case = |name: &str| Case::new(format!("{kind}: {name}"), computing(kind));
    vec![
        case("a segment of a flow of another node goes to the computed backend, whose answer confirms the flow")
            .step(one.data(), Reaches(backend))
            .flow(one, HALF_OPEN)
            .step(one.data(), Reaches(backend))
            .flow(one, HALF_OPEN)
            .step(one.later_answer(backend), Returns)
            .flow(one, ESTABLISHED)
            .step(one.data(), Reaches(backend))
            .records(1),
        case("a client may go on with a FIN, and the backend, too")
            .step(one.fin(), Reaches(backend))
            .flow(one, HALF_OPEN)
            .step(one.reply_fin(backend), Returns)
            .flow(one, &[State(State::ESTABLISHED.0 | State::FIN_BACKEND | State::SHORT_BACKEND)]),
        case("the backend is computed whether it takes new flows or not")
            .change(move |world| world.rest(backend))
            .step(one.data(), Reaches(backend))
            .step(one.later_answer(backend), Returns)
            .flow(one, ESTABLISHED),
        case("a backend that has only seen the SYN answers with a SYN-ACK, and the client's ACK proves the handshake")
            .step(one.ack(1), Reaches(backend))
            .step(one.syn_ack(backend), Returns)
            .flow(one, HALF_OPEN)
            .step(one.ack(1), Reaches(backend))
            .flow(one, ESTABLISHED),
        case("a SYN takes the place of a flow that was computed and not confirmed")
            .step(one.data(), Reaches(backend))
            .step(one.syn(), Opens(backend))
            .step(one.syn_ack(backend), Returns)
            .step(one.ack(1), Reaches(backend))
            .flow(one, ESTABLISHED)
            .records(1),
        case("what the controller has ended is not computed")
            .establish(one, backend)
            .change(move |world| world.renew(backend))
            .step(one.data(), Resets(Reason::NoFlow))
            .step(one.data(), Resets(Reason::NoFlow))
            .records(1),
        case("without any backend, there is no flow")
            .change(|world| world.services[0].backends.clear())
            .step(one.data(), Resets(Reason::NoFlow)),
        flooded(kind),
    ]
}

fn flooded(kind: Kind) -> Case {
    let name = format!("{kind}: forged segments take only records of flows that are not confirmed");
    let case = Case::new(name, computing(kind).with_buckets(1));
    let known = || (0..7).map(|number| flow(kind, number));
    let case = known().fold(case, |case, one| case.establish(one, backend_of(one)));
    let forged = (100..130).map(|number| flow(kind, number));
    let case = forged.fold(case, |case, one| case.step(one.data(), Reaches(backend_of(one)))).records(8);
    known().fold(case, |case, one| case.step(one.data(), Reaches(backend_of(one))).flow(one, ESTABLISHED))
}

fn from_backend(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let backend = backend_of(one);
    let elsewhere = one.client(kind.ip.address("172.16.0.7", "2001:db8:99::7"));
    let other = WEBS.into_iter().find(|it| *it != backend).unwrap_or_default();
    let case = |name: &str| Case::new(format!("{kind}: {name}"), computing(kind));
    vec![
        case("a backend's segment of a flow of another node goes to the client, and both sides confirm the flow")
            .step(one.later_answer(backend), Returns)
            .step(one.later_answer(backend), Returns)
            .flow(one, HALF_OPEN)
            .step(one.ack(1), Reaches(backend))
            .flow(one, HALF_OPEN)
            .step(one.later_answer(backend), Returns)
            .flow(one, ESTABLISHED)
            .records(1),
        case("a backend's segment of a flow that would have another backend is passed to the host")
            .step(one.later_answer(other), Passes(Reason::NotService))
            .records(0),
        case("a backend's segment that leaves through no interface of xlb is passed to the host")
            .step(elsewhere.later_answer(backend_of(elsewhere)), Passes(Reason::NotService))
            .records(0),
        case("a backend's SYN, SYN-ACK or RST makes no flow")
            .step(one.reply(backend, SYN), Passes(Reason::NotService))
            .step(one.syn_ack(backend), Passes(Reason::NotService))
            .step(one.reply_rst(backend), Passes(Reason::NotService))
            .records(0),
        case("a client that does not know the flow ends it, and its RST does not reach the backend")
            .step(one.later_answer(backend), Returns)
            .step(one.rst(), Drops(Reason::NoFlow))
            .records(0),
        case("a SYN takes the place of a flow that was computed from a backend's segment")
            .step(one.later_answer(backend), Returns)
            .step(one.syn(), Opens(backend))
            .step(one.syn_ack(backend), Returns)
            .step(one.ack(1), Reaches(backend))
            .flow(one, ESTABLISHED)
            .records(1),
        case("a backend may end a flow with which it has gone on")
            .step(one.later_answer(backend), Returns)
            .step(one.reply_rst(backend), Returns)
            .records(0),
        Case::new(format!("{kind}: without a computed pool, a backend's segment is passed to the host"), World::new(kind))
            .step(one.later_answer(backend), Passes(Reason::NotService))
            .records(0),
    ]
}

fn refused(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let backend = backend_of(one);
    let case = |name: &str| Case::new(format!("{kind}: {name}"), computing(kind));
    let mut rows = vec![
        case("a backend that does not know the flow ends it, and is not ejected")
            .change(|world| world.services[0].ejects = true)
            .step(one.data(), Reaches(backend))
            .step(one.reply_rst(backend), Returns)
            .records(0)
            .holds(|_, memory| {
                anyhow::ensure!(memory.turns.iter().all(|(_, ejected)| *ejected == 0), "ejected");
                Ok(())
            }),
        case("while another node may know the backend, the client does not learn that the computed one does not know the flow")
            .change(|world| world.quiet = Quiet::Always)
            .step(one.data(), Reaches(backend))
            .step(one.reply_rst(backend), Drops(Reason::Retried))
            .records(0),
        case("while a peer is missing, the client learns after 2.5 s that the computed backend does not know the flow")
            .change(|world| world.quiet = Quiet::AtFirst)
            .step(one.data(), Reaches(backend))
            .step(one.reply_rst(backend), Drops(Reason::Retried))
            .after_s(3)
            .step(one.data(), Reaches(backend))
            .step(one.reply_rst(backend), Returns)
            .records(0),
    ];
    for (name, flags) in [("SYN-ACK", SYN | ACK), ("FIN without ACK", FIN), ("segment without flags", 0)] {
        rows.push(
            case(&format!("a {name} belongs to no flow of another node"))
                .step(one.ack(1).with(move |packet| packet.tcp_mut().flags = flags), Resets(Reason::NoFlow))
                .records(0),
        );
    }
    rows.push(
        case("a RST belongs to no flow of another node")
            .step(one.ack(1).with(|packet| packet.tcp_mut().flags = RST), Drops(Reason::NoFlow))
            .records(0),
    );
    rows
}
