//! A new flow whose slots are all of backends that it should not get tries the other members of the pool.

use std::net::SocketAddr;

use lb_common::{ejection::FAILURES, net::Protocol, reason::Reason, service::Mode};

use crate::{
    case::{Case, Drops, Opens, Reaches, Returns},
    dialogue::{Dialogue, flow},
    world::{Kind, WEB_1, WEB_2, WEB_3, WEBS, World},
};

/// More slots than a new flow tries.
const SLOTS: usize = 20;

/// Every kind.
pub fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for kind in Kind::all() {
        rows.extend(full(kind));
        if kind.mode == Mode::Nat {
            rows.extend([itself(kind), taken(kind), none(kind)]);
        }
        if kind.protocol == Protocol::Tcp {
            rows.extend([refused(kind), ejected(kind)]);
        }
    }
    rows
}

/// All slots are of one backend, as if its weight were much higher than those of the others.
pub fn skewed(kind: Kind) -> World {
    World::new(kind).with_flows(64).with(|world| world.services[0].slots = Some(vec![0; SLOTS]))
}

fn full(kind: Kind) -> [Case; 2] {
    let limited = |limits: [u32; 3]| {
        skewed(kind).with(|world| {
            WEBS.iter().zip(limits).for_each(|(name, limit)| world.find_mut(name).max_flows = limit);
        })
    };
    let shared =
        "the flows that a full backend with most slots does not get are shared by the other backends";
    let all = "if no slot that is tried and no member has room, the reason is backends_full";
    [
        (0..)
            .zip([WEB_1, WEB_2, WEB_3, WEB_3, WEB_2, WEB_3, WEB_2, WEB_2])
            .fold(Case::new(format!("{kind}: {shared}"), limited([1, 0, 0])), |case, (number, name)| {
                case.step(flow(kind, number).first(), Opens(name))
            })
            .step(flow(kind, 0).first(), Reaches(WEB_1)),
        Case::new(format!("{kind}: {all}"), limited([1, 1, 1]))
            .step(flow(kind, 0).first(), Opens(WEB_1))
            .step(flow(kind, 1).first(), Opens(WEB_2))
            .step(flow(kind, 2).first(), Opens(WEB_3))
            .step(flow(kind, 3).first(), Drops(Reason::BackendsFull))
            .change(|world| world.find_mut(WEB_2).max_flows = 2)
            .step(flow(kind, 3).first(), Opens(WEB_2))
            .step(flow(kind, 0).first(), Reaches(WEB_1)),
    ]
}

/// nat keeps the client's address, so a client that is a backend cannot be its own backend.
fn itself(kind: Kind) -> Case {
    let own = Dialogue::new(kind).client(World::new(kind).find(WEB_1).address.ip());
    let name = format!("{kind}: a client that is the backend with most slots gets another backend");
    Case::new(name, skewed(kind))
        .step(own.first(), Opens(WEB_2))
        .step(own.port(40_001).first(), Opens(WEB_2))
        .step(own.port(40_002).first(), Opens(WEB_3))
}

/// nat keeps the client's port, so its flows to two listen addresses need two backends.
fn taken(kind: Kind) -> Case {
    let address = |last: u8| {
        SocketAddr::new(kind.ip.address(&format!("192.0.2.{last}"), &format!("2001:db8::{last}")), 80)
    };
    let others = [20, 21, 22].map(address);
    let world = skewed(kind).with(|world| world.services[0].listen.extend(others));
    let name = "a client port towards several addresses gets as many backends, whatever their slots";
    let one = Dialogue::new(kind);
    let [two, three, four] = others.map(|address| one.listen(address));
    Case::new(format!("{kind}: {name}"), world)
        .establish(one, WEB_1)
        .establish(two, WEB_3)
        .establish(three, WEB_2)
        .step(four.first(), Drops(Reason::TupleInUse))
        .step(one.later_answer(WEB_1), Returns)
        .step(two.later_answer(WEB_3), Returns)
        .step(three.later_answer(WEB_2), Returns)
}

/// The controller is about to write the members, as after an upgrade.
fn none(kind: Kind) -> Case {
    let other = SocketAddr::new(kind.ip.address("192.0.2.20", "2001:db8::20"), 80);
    let world = skewed(kind).with(|world| {
        world.services[0].listen.push(other);
        world.services[0].members = Some(Vec::new());
    });
    let one = Dialogue::new(kind);
    Case::new(format!("{kind}: without members, a reply tuple in use has no other reason"), world)
        .establish(one, WEB_1)
        .step(one.listen(other).first(), Drops(Reason::TupleInUse))
        .step(one.later_answer(WEB_1), Returns)
}

fn refused(kind: Kind) -> Case {
    let one = flow(kind, 0);
    let world = skewed(kind).with(|world| world.services[0].retries = true);
    let name = "a client that the backend with most slots has refused gets another backend";
    Case::new(format!("{kind}: {name}"), world)
        .step(one.syn(), Opens(WEB_1))
        .step(one.reply_rst(WEB_1), Drops(Reason::Retried))
        .step(one.syn(), Opens(WEB_2))
        .step(one.syn_ack(WEB_2), Returns)
}

fn ejected(kind: Kind) -> Case {
    let world = skewed(kind).with(|world| world.services[0].ejects = true);
    let name = "the backend with most slots is ejected: the others share its flows";
    let case = (0..FAILURES as u16).fold(Case::new(format!("{kind}: {name}"), world), |case, number| {
        case.step(flow(kind, number).syn(), Opens(WEB_1)).step(flow(kind, number).reply_rst(WEB_1), Returns)
    });
    (10..)
        .zip([WEB_3, WEB_2, WEB_3, WEB_2])
        .fold(case, |case, (number, name)| case.step(flow(kind, number).syn(), Opens(name)))
        .after_s(2)
        .step(flow(kind, 20).syn(), Opens(WEB_1)) // a probe
        .step(flow(kind, 21).syn(), Opens(WEB_3))
}
