//! Missing map values: the reason for our packets is `internal`, and the host's packets pass.
//!
//! Only the memory engine can remove an element: a kernel array always has all of them. Elements that the controller has
//! not written are zeros there, and a filter of zeros marks nothing as ours.

use std::net::SocketAddr;

use lb_common::{net::Protocol, quiet::Quiet, reason::Reason, service::Mode};

use crate::{
    case::{Case, Drops, Expected, Opens, Passes, Reaches},
    dialogue::Dialogue,
    rows::{icmp, members},
    world::{
        Element::{
            self, Answers, Backend, Bucket, FirstSeen, HalfOpen, Interface, Line, Members, Pool, Scratch,
            Slots, Sources, Turn,
        },
        Family, Kind, WEB_1, World,
    },
};

const ALL: [Element; 13] = [
    Pool, Slots, Members, Sources, Turn, Backend, Interface, Bucket, Line, Scratch, HalfOpen, Answers,
    FirstSeen,
];
const INTERNAL: Expected = Drops(Reason::Internal);

/// Each element that a packet needs is missing in turn.
pub fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for kind in Kind::all() {
        rows.extend(first_packets(kind));
        rows.extend(known_flows(kind));
        rows.extend(errors(kind));
        rows.extend(unrelated_packets(kind));
        rows.extend(unanswered(kind));
        rows.push(without_members(kind));
    }
    rows.extend(Family::ALL.map(closing));
    rows
}

fn without(case: Case, element: Element) -> Case {
    case.change(move |world| world.missing = Some(element))
}

fn case(kind: Kind, what: &str, element: Element) -> Case {
    Case::new(format!("{kind}: {what} without {element:?}"), World::new(kind))
}

fn first_packets(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let needed = [Pool, Slots, Turn, Backend, Bucket, Line, Scratch, HalfOpen];
    let row = |element| {
        without(case(kind, "a first packet", element), element).step(one.first(), INTERNAL).records(0)
    };
    let mut rows = Vec::from(needed.map(row));
    // nat uses no source address.
    rows.extend((kind.mode == Mode::FullNat).then(|| row(Sources)));
    rows
}

/// Members are tried if no slot that is tried has room.
fn without_members(kind: Kind) -> Case {
    let full = members::skewed(kind).with(|world| world.find_mut(WEB_1).max_flows = 1);
    let name = format!("{kind}: a first packet that finds no slot with room, without {Members:?}");
    let case = Case::new(name, full).step(Dialogue::new(kind).first(), Opens(WEB_1));
    without(case, Members).step(Dialogue::new(kind).port(40_001).first(), INTERNAL).records(1)
}

/// Without the account of answers, nothing is answered. Without the map of flows that are not known, nor are their packets while
/// a peer is missing.
fn unanswered(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let without_backends = case(kind, "a refused packet", Answers)
        .change(|world| world.services[0].backends.iter_mut().for_each(|it| it.accepts = false));
    let mut rows = vec![without(without_backends, Answers).step(one.first(), Drops(Reason::NoBackend))];
    if kind.protocol == Protocol::Tcp {
        let at_first = case(kind, "a packet of no flow", FirstSeen)
            .change(|world| world.quiet = Quiet::AtFirst)
            .step(one.data(), Drops(Reason::NoFlow))
            .after_s(3);
        rows.push(without(at_first, FirstSeen).step(one.data(), Drops(Reason::NoFlow)));
    }
    rows
}

fn known_flows(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let established = |what, element| case(kind, what, element).establish(one, WEB_1);
    let request = |element| without(established("a request", element), element).step(one.later(), INTERNAL);
    let reply =
        |element| without(established("a reply", element), element).step(one.later_answer(WEB_1), INTERNAL);
    let rerouted =
        established("a reply after a change of routes", Scratch).change(|world| world.hop_generation += 1);
    let mut rows = Vec::from([Backend, Bucket].map(request));
    rows.extend([Backend, Bucket, Line, Interface].map(reply));
    rows.push(without(rerouted, Scratch).step(one.later_answer(WEB_1), INTERNAL));
    rows
}

fn errors(kind: Kind) -> Vec<Case> {
    let one = Dialogue::new(kind);
    let of_request = |element| {
        without(case(kind, "an error about a request", element).establish(one, WEB_1), element)
            .step(icmp::any_error(kind, one.later()), INTERNAL)
    };
    let of_reply = |element| {
        without(case(kind, "an error about a reply", element).establish(one, WEB_1), element)
            .step(icmp::any_error(kind, one.later_answer(WEB_1)), INTERNAL)
    };
    let mut rows = Vec::from([Backend, Bucket, Line].map(of_request));
    rows.extend([Backend, Bucket, Scratch].map(of_reply));
    rows
}

/// The records of a closing flow and of the reopening one are distinguished.
fn closing(ip: Family) -> Case {
    let kind = Kind::new(ip, Protocol::Tcp, Mode::FullNat);
    let one = Dialogue::new(kind);
    let half_closed = case(kind, "a request of a closing flow", Scratch)
        .establish(one, WEB_1)
        .step(one.fin(), Reaches(WEB_1));
    without(half_closed, Scratch).step(one.ack(2), INTERNAL)
}

/// Whatever is missing, the operator can reach the host.
fn unrelated_packets(kind: Kind) -> Vec<Case> {
    let host = Dialogue::new(kind).listen(SocketAddr::new(kind.ip.inside(1), 22));
    let row = |element| {
        without(case(kind, "a packet for the host", element), element)
            .step(host.first(), Passes(Reason::NotService))
    };
    Vec::from(ALL.map(row))
}
