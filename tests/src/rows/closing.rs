//! How TCP flows end: FIN and RST shorten the timer, the other side's next packet restores it, and a SYN on a closing
//! flow makes a reopening flow that replaces it once proven.

use lb_common::{flow::State, net::Protocol, reason::Reason, service::Mode};
use lb_ebpf::{packet::tcp::ACK, table::record};

use crate::{
    case::{Case, Drops, Opens, Passes, Reaches, Resets, Returns},
    dialogue::{Dialogue, Message},
    world::{Family, Kind, WEB_1, WEB_2, WEB_3, World},
};

const ESTABLISHED: State = State::ESTABLISHED;
const FIN_CLIENT: u8 = State::FIN_CLIENT;
const FIN_BACKEND: u8 = State::FIN_BACKEND;
const SYN_WHILE_CLOSING: u8 = State::SYN_WHILE_CLOSING;
const SHORT_CLIENT: u8 = State::SHORT_CLIENT;
const SHORT_BACKEND: u8 = State::SHORT_BACKEND;
const RESET: u8 = State::RESET;

const fn established_with(bits: u8) -> State {
    State(ESTABLISHED.0 | bits)
}

/// An acknowledgement of an older connection, far from any SYN-ACK.
const OLD: u32 = 5_000_000;

/// TCP over both families with full-nat, then with nat, where backends see a client's port again.
pub fn rows() -> Vec<Case> {
    Kind::tcp()
        .into_iter()
        .flat_map(|kind| {
            fins(kind).into_iter().chain(resets(kind)).chain(reopenings(kind)).chain(old_flows(kind))
        })
        .chain(Family::ALL.into_iter().flat_map(with_nat))
        .collect()
}

fn fins(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let world = World::new(kind);
    vec![
        Case::new(format!("{kind}: a client closes first"), world.clone())
            .establish(one, WEB_1)
            .step(one.fin(), Reaches(WEB_1))
            .flow(one, &[established_with(FIN_CLIENT | SHORT_CLIENT)])
            .step(one.reply(WEB_1, ACK), Returns)
            .flow(one, &[established_with(FIN_CLIENT)])
            .step(one.reply_fin(WEB_1), Returns)
            .flow(one, &[established_with(FIN_CLIENT | FIN_BACKEND | SHORT_BACKEND)])
            .step(one.ack(2), Reaches(WEB_1))
            .flow(one, &[established_with(FIN_CLIENT | FIN_BACKEND)]),
        Case::new(format!("{kind}: a backend closes first"), world.clone())
            .establish(one, WEB_1)
            .step(one.reply_fin(WEB_1), Returns)
            .flow(one, &[established_with(FIN_BACKEND | SHORT_BACKEND)])
            .step(one.data(), Reaches(WEB_1))
            .flow(one, &[established_with(FIN_BACKEND)])
            .step(one.fin(), Reaches(WEB_1))
            .step(one.reply(WEB_1, ACK), Returns)
            .flow(one, &[established_with(FIN_CLIENT | FIN_BACKEND)]),
        Case::new(format!("{kind}: a repeated last FIN of a closed flow is still answered"), world)
            .establish(one, WEB_1)
            .step(one.reply_fin(WEB_1), Returns)
            .step(one.fin(), Reaches(WEB_1))
            .step(one.reply_fin(WEB_1), Returns)
            .step(one.ack(2), Reaches(WEB_1)),
    ]
}

fn resets(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let case = |name: &str| Case::new(format!("{kind}: {name}"), World::new(kind)).establish(one, WEB_1);
    let by_both = |name: &str| {
        case(name)
            .step(one.rst(), Reaches(WEB_1))
            .step(one.reply_rst(WEB_1), Returns)
            .flow(one, &[established_with(RESET | SHORT_CLIENT | SHORT_BACKEND)])
    };
    vec![
        case("a client's RST resets the flow; the backend's next packet restores it, the client's does not")
            .step(one.rst(), Reaches(WEB_1))
            .flow(one, &[established_with(RESET | SHORT_CLIENT)])
            .step(one.data(), Reaches(WEB_1))
            .step(one.rst(), Reaches(WEB_1))
            .flow(one, &[established_with(RESET | SHORT_CLIENT)])
            .step(one.later_answer(WEB_1), Returns)
            .flow(one, &[ESTABLISHED]),
        case("a backend's RST resets the flow; the client's next packet restores it, the backend's does not")
            .step(one.reply_rst(WEB_1), Returns)
            .flow(one, &[established_with(RESET | SHORT_BACKEND)])
            .step(one.later_answer(WEB_1), Returns)
            .flow(one, &[established_with(RESET | SHORT_BACKEND)])
            .step(one.data(), Reaches(WEB_1))
            .flow(one, &[ESTABLISHED]),
        by_both("RSTs of both sides are undone by later packets of both sides")
            .step(one.data(), Reaches(WEB_1))
            .flow(one, &[established_with(RESET | SHORT_CLIENT)])
            .step(one.later_answer(WEB_1), Returns)
            .flow(one, &[ESTABLISHED]),
        by_both("RSTs of both sides are undone in either order")
            .step(one.later_answer(WEB_1), Returns)
            .flow(one, &[established_with(RESET | SHORT_BACKEND)])
            .step(one.data(), Reaches(WEB_1))
            .flow(one, &[ESTABLISHED]),
        case("a FIN restores what the other side's RST reset, and begins to close")
            .step(one.rst(), Reaches(WEB_1))
            .step(one.reply_fin(WEB_1), Returns)
            .flow(one, &[established_with(FIN_BACKEND | SHORT_BACKEND)])
            .step(one.data(), Reaches(WEB_1))
            .flow(one, &[established_with(FIN_BACKEND)]),
        case("a RST resets a half-closed flow, and the FIN is remembered")
            .step(one.fin(), Reaches(WEB_1))
            .step(one.reply_rst(WEB_1), Returns)
            .flow(one, &[established_with(FIN_CLIENT | RESET | SHORT_BACKEND)])
            .step(one.ack(2), Reaches(WEB_1))
            .flow(one, &[established_with(FIN_CLIENT)]),
        case("a client's RST after its FIN resets the flow")
            .step(one.fin(), Reaches(WEB_1))
            .step(one.rst(), Reaches(WEB_1))
            .flow(one, &[established_with(FIN_CLIENT | RESET | SHORT_CLIENT)])
            .step(one.reply_fin(WEB_1), Returns)
            .flow(one, &[established_with(FIN_CLIENT | FIN_BACKEND | SHORT_BACKEND)]),
        case("a FIN after a RST of its own side closes a flow that the other side has closed")
            .step(one.reply_fin(WEB_1), Returns)
            .step(one.rst(), Reaches(WEB_1))
            .flow(one, &[established_with(FIN_BACKEND | RESET | SHORT_CLIENT)])
            .step(one.fin(), Reaches(WEB_1))
            .flow(one, &[established_with(FIN_CLIENT | FIN_BACKEND | SHORT_CLIENT)]),
        case("a RST does not change a closed flow")
            .step(one.fin(), Reaches(WEB_1))
            .step(one.reply_fin(WEB_1), Returns)
            .step(one.ack(2), Reaches(WEB_1))
            .step(one.rst(), Reaches(WEB_1))
            .step(one.reply_rst(WEB_1), Returns)
            .flow(one, &[established_with(FIN_CLIENT | FIN_BACKEND | SHORT_CLIENT)]),
    ]
}

/// A flow that its client has half closed, and a reopening flow beside it.
fn reopening(kind: Kind, name: &str) -> Case {
    let one = Dialogue::new(kind);
    Case::new(format!("{kind}: {name}"), World::new(kind))
        .establish(one, WEB_1)
        .step(one.fin(), Reaches(WEB_1))
        .step(one.syn(), Opens(WEB_2))
        .flow(one, &[established_with(FIN_CLIENT | SHORT_CLIENT | SYN_WHILE_CLOSING), State::REOPENING])
}

fn reopenings(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    vec![
        reopening(kind, "a proven reopening flow replaces the closing flow")
            .step(one.syn(), Reaches(WEB_2))
            .step(one.syn_ack(WEB_2), Returns)
            .step(one.ack(1), Reaches(WEB_2))
            .flow(one, &[ESTABLISHED])
            .records(2)
            .step(one.later_answer(WEB_2), Returns)
            .step(one.later_answer(WEB_1), Passes(Reason::NotService)),
        reopening(kind, "the closing flow keeps working until the reopening flow is proven")
            .step(one.later_answer(WEB_1), Returns)
            .step(one.ack(OLD), Reaches(WEB_1))
            .step(one.syn_ack(WEB_2), Returns)
            .step(one.ack(OLD), Reaches(WEB_1))
            .step(one.later_answer(WEB_1), Returns)
            .flow(one, &[established_with(FIN_CLIENT | SYN_WHILE_CLOSING), State::REOPENING])
            .step(one.ack(1), Reaches(WEB_2))
            .flow(one, &[ESTABLISHED])
            .records(2),
        reopening(kind, "a reopening flow that is never proven expires alone")
            .step(one.later_answer(WEB_1), Returns)
            .after_s(121)
            .step(one.ack(OLD), Reaches(WEB_1))
            .step(one.syn(), Opens(WEB_3))
            .step(one.syn_ack(WEB_3), Returns)
            .step(one.ack(1), Reaches(WEB_3))
            .flow(one, &[ESTABLISHED]),
        reopening(kind, "a reopening flow that its backend refuses leaves the closing flow alone")
            .step(one.reply_rst(WEB_2), Returns)
            .flow(one, &[established_with(FIN_CLIENT | SHORT_CLIENT | SYN_WHILE_CLOSING)])
            .step(one.later_answer(WEB_1), Returns)
            .step(one.ack(OLD), Reaches(WEB_1))
            .step(one.syn(), Opens(WEB_3)),
        refused_in_front(kind),
        Case::new(
            format!(
                "{kind}: a client that resets and reconnects is served, whatever its old backend still sends"
            ),
            World::new(kind),
        )
        .establish(one, WEB_1)
        .step(one.rst(), Reaches(WEB_1))
        .step(one.syn(), Opens(WEB_2))
        .step(one.later_answer(WEB_1), Returns)
        .step(one.syn(), Reaches(WEB_2))
        .step(one.syn_ack(WEB_2), Returns)
        .step(one.ack(1), Reaches(WEB_2))
        .flow(one, &[ESTABLISHED])
        .records(2),
        Case::new(format!("{kind}: a forged RST and a forged SYN do not kill a flow"), World::new(kind))
            .establish(one, WEB_1)
            .step(one.rst(), Reaches(WEB_1))
            .step(one.syn(), Opens(WEB_2))
            .step(one.syn_ack(WEB_2), Returns)
            .step(one.ack(OLD), Reaches(WEB_1))
            .step(one.later_answer(WEB_1), Returns)
            .flow(one, &[established_with(SYN_WHILE_CLOSING), State::REOPENING])
            .step(one.ack(OLD), Reaches(WEB_1)),
    ]
}

/// A lookup finds the record of the reopening flow first: another flow had that record when the closing one was
/// created.
fn refused_in_front(kind: Kind) -> Case {
    let one = Dialogue::new(kind);
    let way = |dialogue: Dialogue| record::preferred(dialogue.hash());
    let mut others = (40_001..u16::MAX).map(|port| one.port(port));
    let other = others.find(|it| way(*it) == way(one)).unwrap_or(one);
    Case::new(
        format!("{kind}: a refused reopening flow leaves the closing flow alone, wherever its record is"),
        World::new(kind).with_buckets(1),
    )
    .establish(other, WEB_1)
    .after_s(7400)
    .establish(one, WEB_2)
    .after_s(60)
    .step(other.data(), Resets(Reason::NoFlow)) // It has expired, and its record is free.
    .step(one.fin(), Reaches(WEB_2))
    .step(one.syn(), Opens(WEB_3))
    .step(one.reply_rst(WEB_3), Returns)
    .step(one.ack(OLD), Reaches(WEB_2))
    .step(one.later_answer(WEB_2), Returns)
    .records(1)
}

fn old_flows(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    vec![
        Case::new(format!("{kind}: a client reuses its port after both sides have closed"), World::new(kind))
            .establish(one, WEB_1)
            .step(one.fin(), Reaches(WEB_1))
            .step(one.reply_fin(WEB_1), Returns)
            .step(one.ack(2), Reaches(WEB_1))
            .step(one.syn(), Opens(WEB_2))
            .step(one.syn_ack(WEB_2), Returns)
            .step(one.ack(1), Reaches(WEB_2))
            .flow(one, &[ESTABLISHED])
            .records(2),
        Case::new(
            format!(
                "{kind}: with one backend, a reused client port gets a source port other than the old connection's"
            ),
            World::new(kind).with_one_backend(),
        )
        .establish(one, WEB_1)
        .step(one.fin(), Reaches(WEB_1))
        .step(one.reply_fin(WEB_1), Returns)
        .step(one.syn(), Opens(WEB_1))
        .step(one.syn_ack(WEB_1), Returns)
        .step(one.ack(1), Reaches(WEB_1))
        .flow(one, &[ESTABLISHED])
        .records(2),
    ]
}

/// The SYN-ACK of another connection.
fn another_syn_ack(one: Dialogue) -> Message {
    one.syn_ack(WEB_1).with(|packet| packet.tcp_mut().sequence = OLD - 1)
}

/// The client's port is in use towards the only backend that gets new flows; the closing flow has another backend.
fn elsewhere_in_use(kind: Kind) -> Case {
    let one = Dialogue::new(kind);
    let other = one.listen(std::net::SocketAddr::new(kind.ip.address("192.0.2.20", "2001:db8::20"), 80));
    let world = World::new(kind).with(|world| {
        world.services[0].backends.truncate(2);
        world.services[0].listen.push(other.listen);
    });
    Case::new(format!("{kind}: no SYN goes to the backend of a closing flow if it gets no new flows"), world)
        .establish(one, WEB_1)
        .step(one.fin(), Reaches(WEB_1))
        .establish(other, WEB_2)
        .change(|world| world.rest(WEB_1))
        .step(one.syn(), Drops(Reason::TupleInUse))
        .step(one.later_answer(WEB_1), Returns)
        .step(one.ack(OLD), Reaches(WEB_1))
        .change(|world| world.find_mut(WEB_1).accepts = true)
        .step(one.syn(), Reaches(WEB_1))
        .records(2)
}

/// A forged RST and a forged SYN to another address of the service must not free the port of a client's connection.
fn reset_elsewhere(kind: Kind) -> Case {
    let one = Dialogue::new(kind);
    let other = one.listen(std::net::SocketAddr::new(kind.ip.address("192.0.2.20", "2001:db8::20"), 80));
    let world = World::new(kind).with_one_backend().with(|world| world.services[0].listen.push(other.listen));
    Case::new(format!("{kind}: a client's port is free towards another address 10 s after a RST"), world)
        .establish(one, WEB_1)
        .step(one.rst(), Reaches(WEB_1))
        .step(other.syn(), Drops(Reason::TupleInUse))
        .step(one.later_answer(WEB_1), Returns)
        .step(one.rst(), Reaches(WEB_1))
        .after_s(11)
        .step(other.syn(), Opens(WEB_1))
}

/// With nat, the backend could not distinguish the two connections.
fn with_nat(ip: Family) -> Vec<Case> {
    let kind = Kind::new(ip, Protocol::Tcp, Mode::Nat);
    let one = Dialogue::new(kind);
    let world = World::new(kind).with_one_backend();
    vec![
        Case::new(
            format!("{kind}: with one backend, a port is reused once both sides have closed"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .step(one.fin(), Reaches(WEB_1))
        .step(one.reply_fin(WEB_1), Returns)
        .step(one.ack(2), Reaches(WEB_1))
        .step(one.syn(), Opens(WEB_1))
        .records(1)
        .step(one.syn_ack(WEB_1), Returns)
        .step(one.ack(1), Reaches(WEB_1))
        .flow(one, &[ESTABLISHED]),
        Case::new(
            format!("{kind}: with one backend, SYNs on a closing flow go to it until it accepts one"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .step(one.fin(), Reaches(WEB_1))
        .step(one.syn(), Reaches(WEB_1))
        .flow(one, &[established_with(FIN_CLIENT | SHORT_CLIENT)])
        .step(one.reply(WEB_1, ACK), Returns)
        .step(one.rst(), Reaches(WEB_1))
        .step(one.syn(), Reaches(WEB_1))
        .step(another_syn_ack(one), Returns)
        .flow(one, &[established_with(SHORT_BACKEND)])
        .step(one.syn(), Reaches(WEB_1))
        .step(another_syn_ack(one), Returns)
        .step(one.ack(OLD), Reaches(WEB_1))
        .flow(one, &[ESTABLISHED])
        .records(1)
        .step(one.reply_fin(WEB_1), Returns)
        .flow(one, &[established_with(FIN_BACKEND | SHORT_BACKEND)]),
        Case::new(
            format!("{kind}: with one backend, a forged RST and a forged SYN do not kill a flow"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .step(one.rst(), Reaches(WEB_1))
        .step(one.syn(), Reaches(WEB_1))
        .step(one.reply(WEB_1, ACK), Returns)
        .flow(one, &[ESTABLISHED])
        .step(one.ack(OLD), Reaches(WEB_1))
        .records(1),
        Case::new(
            format!("{kind}: with one backend, a SYN on a closing flow keeps it for as long as any packet"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .step(one.fin(), Reaches(WEB_1))
        .after_s(200)
        .step(one.syn(), Reaches(WEB_1))
        .after_s(200)
        .step(one.syn(), Reaches(WEB_1))
        .after_s(241)
        .step(one.syn(), Opens(WEB_1))
        .records(1),
        Case::new(format!("{kind}: a repeated SYN-ACK restarts nothing"), world)
            .establish(one, WEB_1)
            .step(one.fin(), Reaches(WEB_1))
            .step(one.syn_ack(WEB_1), Returns)
            .flow(one, &[established_with(FIN_CLIENT)]),
        elsewhere_in_use(kind),
        reset_elsewhere(kind),
        Case::new(
            format!("{kind}: with several backends, a SYN on a closing flow goes to another one"),
            World::new(kind),
        )
        .establish(one, WEB_1)
        .step(one.rst(), Reaches(WEB_1))
        .step(one.syn(), Opens(WEB_2))
        .step(one.syn_ack(WEB_2), Returns)
        .step(one.ack(1), Reaches(WEB_2))
        .flow(one, &[ESTABLISHED])
        .records(2),
    ]
}
