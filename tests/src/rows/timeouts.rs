//! How long a flow may be idle in each state: `lb_common::flow::State` has the table and its RFCs.

use lb_common::{net::Protocol, reason::Reason};
use lb_ebpf::packet::tcp::ACK;

use crate::{
    case::{Case, Expected, Opens, Passes, Reaches, Resets, Returns},
    dialogue::Dialogue,
    world::{Kind, WEB_1, WEB_2, World},
};

/// The second before each limit and the one after it, for TCP and for UDP with full-nat.
pub fn rows() -> Vec<Case> {
    Kind::tcp().into_iter().flat_map(tcp).chain(Kind::udp().into_iter().flat_map(udp)).collect()
}

/// The states, their timeouts in seconds, and steps that bring a flow there.
type Prelude = (&'static str, u64, fn(Case, Dialogue) -> Case);

fn tcp(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let states: [Prelude; 8] = [
        ("half-open", 120, |case, one| case.step(one.syn(), Opens(WEB_1))),
        ("established", 7440, |case, one| case.establish(one, WEB_1)),
        ("half-closed and silent", 240, |case, one| {
            case.establish(one, WEB_1).step(one.fin(), Reaches(WEB_1))
        }),
        ("half-closed while the other side sends", 7440, |case, one| {
            case.establish(one, WEB_1).step(one.fin(), Reaches(WEB_1)).step(one.reply(WEB_1, ACK), Returns)
        }),
        ("reset by its client", 10, |case, one| case.establish(one, WEB_1).step(one.rst(), Reaches(WEB_1))),
        ("reset by its backend", 10, |case, one| {
            case.establish(one, WEB_1).step(one.reply_rst(WEB_1), Returns)
        }),
        ("reset, and restored by the other side", 7440, |case, one| {
            case.establish(one, WEB_1).step(one.rst(), Reaches(WEB_1)).step(one.reply(WEB_1, ACK), Returns)
        }),
        ("closed", 240, |case, one| {
            case.establish(one, WEB_1).step(one.fin(), Reaches(WEB_1)).step(one.reply_fin(WEB_1), Returns)
        }),
    ];
    let mut rows = lifetimes(kind, &states, Resets(Reason::NoFlow));
    let world = World::new(kind);
    rows.extend([
        Case::new(format!("{kind}: a SYN on an expired flow opens another"), world.clone())
            .establish(one, WEB_1)
            .after_s(7441)
            .step(one.syn(), Opens(WEB_2))
            .records(1),
        Case::new(format!("{kind}: a flow that was idle for a month has ended"), world.clone())
            .establish(one, WEB_1)
            .after_s(30 * 86_400)
            .step(one.data(), Resets(Reason::NoFlow))
            .step(one.syn(), Opens(WEB_2))
            .records(1),
        Case::new(format!("{kind}: the client's packets keep a flow"), world.clone())
            .establish(one, WEB_1)
            .after_s(7000)
            .step(one.data(), Reaches(WEB_1))
            .after_s(7000)
            .step(one.data(), Reaches(WEB_1)),
        Case::new(format!("{kind}: the backend's packets keep a flow"), world.clone())
            .establish(one, WEB_1)
            .after_s(7000)
            .step(one.later_answer(WEB_1), Returns)
            .after_s(7000)
            .step(one.data(), Reaches(WEB_1)),
        Case::new(format!("{kind}: a backend's packet does not revive an expired flow"), world)
            .establish(one, WEB_1)
            .after_s(7441)
            .step(one.later_answer(WEB_1), Passes(Reason::NotService))
            .step(one.data(), Resets(Reason::NoFlow))
            .records(0),
    ]);
    rows
}

fn udp(kind: Kind) -> Vec<Case> {
    let states: [Prelude; 3] = [
        ("half-open", 120, |case, one| case.step(one.first(), Opens(WEB_1))),
        ("answered, but without another request", 120, |case, one| {
            case.step(one.first(), Opens(WEB_1)).step(one.answer(WEB_1), Returns)
        }),
        ("established", 300, |case, one| case.establish(one, WEB_1)),
    ];
    lifetimes(kind, &states, Opens(WEB_2))
}

/// Rows for the last second of each state and for the second after, with a packet of either side.
fn lifetimes(kind: Kind, states: &[Prelude], afterwards: Expected) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let probe = || match kind.protocol {
        Protocol::Tcp => one.ack(70_000),
        Protocol::Udp => one.later(),
    };
    let mut rows = Vec::new();
    for (state, seconds, prelude) in states {
        let begun = |verb: &str| {
            prelude(
                Case::new(format!("{kind}: a flow that is {state} {verb} {seconds} s"), World::new(kind)),
                one,
            )
        };
        rows.push(begun("lives for").after_s(seconds - 1).step(probe(), Reaches(WEB_1)));
        rows.push(begun("is over after").after_s(seconds + 1).step(probe(), afterwards.clone()));
        let word = || one.later_answer(WEB_1);
        rows.push(begun("answers its backend for").after_s(seconds - 1).step(word(), Returns));
        rows.push(
            begun("is over for its backend after")
                .after_s(seconds + 1)
                .step(word(), Passes(Reason::NotService))
                .step(probe(), afterwards.clone()),
        );
    }
    rows
}
