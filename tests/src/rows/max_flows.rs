//! A backend that has `max_flows` flows gets no others.

use anyhow::ensure;
use lb_common::{net::Protocol, pool::Picker, reason::Reason};

use crate::{
    case::{Case, Drops, Opens, Reaches, Returns},
    dialogue::flow,
    engine::Memory,
    world::{Kind, WEB_1, WEB_2, WEB_3, WEBS, World},
};

/// Every kind.
pub fn rows() -> Vec<Case> {
    Kind::all().into_iter().flat_map(every_kind).collect()
}

/// Each backend has this limit.
fn world(kind: Kind, picker: Picker, limits: [u32; 3]) -> World {
    World::new(kind).with_flows(64).with(|world| {
        world.services[0].picker = picker;
        WEBS.iter().zip(limits).for_each(|(name, limit)| world.find_mut(name).max_flows = limit);
    })
}

fn every_kind(kind: Kind) -> Vec<Case> {
    let case = |name: &str, limits| Case::new(format!("{kind}: {name}"), world(kind, Picker::Turn, limits));
    let full = case("a backend with max_flows flows is passed over, and keeps its flows", [1, 0, 0])
        .step(flow(kind, 0).first(), Opens(WEB_1))
        .step(flow(kind, 1).first(), Opens(WEB_2))
        .step(flow(kind, 2).first(), Opens(WEB_3))
        .step(flow(kind, 3).first(), Opens(WEB_2))
        .step(flow(kind, 0).first(), Reaches(WEB_1));
    let mut rows = vec![full];
    rows.extend(Picker::ALL.iter().map(|picker| all_full(kind, *picker)));
    rows.extend([expired(kind), expired_beside_another(kind), expired_in_a_large_table(kind)]);
    if kind.protocol == Protocol::Tcp {
        let (one, two) = (flow(kind, 0), flow(kind, 1));
        let one_backend = world(kind, Picker::Turn, [1, 0, 0]).with_one_backend();
        rows.push(
            Case::new(format!("{kind}: a flow that has ended makes room for another"), one_backend)
                .establish(one, WEB_1)
                .step(two.syn(), Drops(Reason::BackendsFull))
                .step(one.fin(), Reaches(WEB_1))
                .step(one.reply_fin(WEB_1), Returns)
                .step(two.syn(), Opens(WEB_1)),
        );
    }
    rows
}

/// Without a daemon, whose sweep would retire it.
fn expired(kind: Kind) -> Case {
    let (one, two) = (flow(kind, 0), flow(kind, 1));
    let world = world(kind, Picker::Turn, [1, 0, 0]).with_one_backend();
    Case::new(format!("{kind}: a flow that has expired makes room for another"), world)
        .step(one.first(), Opens(WEB_1))
        .after_s(119)
        .step(two.first(), Drops(Reason::BackendsFull))
        .after_s(2)
        .step(two.first(), Opens(WEB_1))
}

/// Even if no new flow is refused, because another backend has room.
fn expired_beside_another(kind: Kind) -> Case {
    Case::new(
        format!("{kind}: a backend whose flows have expired gets others again"),
        world(kind, Picker::Turn, [1, 0, 0]),
    )
    .step(flow(kind, 0).first(), Opens(WEB_1))
    .step(flow(kind, 1).first(), Opens(WEB_2))
    .step(flow(kind, 2).first(), Opens(WEB_3))
    .after_s(121)
    .step(flow(kind, 3).first(), Opens(WEB_1))
}

/// 64 buckets at a time, 64 ticks apart or more.
fn expired_in_a_large_table(kind: Kind) -> Case {
    const FLOWS: u16 = 40;
    let world = World::new(kind).with_one_backend().with_buckets(128);
    let name = format!("{kind}: new flows search the table for flows that have expired, in parts");
    let case = (0..FLOWS)
        .fold(Case::new(name, world), |case, number| case.step(flow(kind, number).first(), Opens(WEB_1)));
    let another = flow(kind, FLOWS).first();
    let has_ended_half = |world: &World, memory: &Memory| {
        let (left, _) = memory.loads[world.find(WEB_1).id.0 as usize];
        ensure!((10..30).contains(&left), "{left} flows are left");
        Ok(())
    };
    case.change(|world| world.find_mut(WEB_1).max_flows = 1)
        .after_s(121)
        .step(another.clone(), Drops(Reason::BackendsFull))
        .holds(has_ended_half)
        .step(another.clone(), Drops(Reason::BackendsFull))
        .holds(has_ended_half)
        .after_s(1)
        .step(another, Opens(WEB_1))
}

/// Whatever the picker, three backends with a limit of one flow each take three flows.
fn all_full(kind: Kind, picker: Picker) -> Case {
    let name = format!("{kind}: if all backends are full, the reason is backends_full ({picker:?})");
    let mut case = Case::new(name, world(kind, picker, [0; 3]));
    // Each backend in turn is the only one with room, so the order does not depend on the picker.
    for (number, name) in (0..).zip(WEBS) {
        case = case
            .change(move |world| {
                for it in WEBS {
                    world.find_mut(it).max_flows = if it == name { 1 } else { 0 };
                    world.find_mut(it).accepts = it == name;
                }
            })
            .step(flow(kind, number).first(), Opens(name));
    }
    case.change(|world| {
        for name in WEBS {
            (world.find_mut(name).accepts, world.find_mut(name).max_flows) = (true, 1);
        }
    })
    .step(flow(kind, 3).first(), Drops(Reason::BackendsFull))
    .step(flow(kind, 0).first(), Reaches(WEB_1))
    .change(|world| world.find_mut(WEB_3).max_flows = 2)
    .step(flow(kind, 3).first(), Opens(WEB_3))
}
