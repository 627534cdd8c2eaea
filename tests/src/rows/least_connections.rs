//! New flows go to the backend with the fewest flows for its weight: of all, or of two.

use lb_common::{ejection::FAILURES, net::Protocol, pool::Picker, reason::Reason};
use lb_ebpf::table::hash::reduce;

use crate::{
    case::{Case, Drops, Opens, Reaches, Returns},
    dialogue::flow,
    world::{Kind, WEB_1, WEB_2, WEB_3, WEBS, World},
};

/// Every kind.
pub fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for kind in Kind::all() {
        rows.extend(every_kind(kind));
        if kind.protocol == Protocol::Tcp {
            rows.extend(tcp(kind));
        }
    }
    rows
}

fn world(kind: Kind, picker: Picker) -> World {
    World::new(kind).with_flows(64).with(|world| world.services[0].picker = picker)
}

/// First packets of this many flows, and their backends.
fn open<'a>(case: Case, kind: Kind, from: u16, backends: impl IntoIterator<Item = &'a &'static str>) -> Case {
    (from..)
        .zip(backends)
        .fold(case, |case, (number, name)| case.step(flow(kind, number).first(), Opens(name)))
}

fn every_kind(kind: Kind) -> Vec<Case> {
    let case = |name: &str| Case::new(format!("{kind}: {name}"), world(kind, Picker::LeastOfAll));
    let only = |names: &'static [&str]| {
        move |world: &mut World| WEBS.iter().for_each(|it| world.find_mut(it).accepts = names.contains(it))
    };
    let in_turn = case("backends with equal loads take turns");
    let caught_up = open(
        case("a backend with fewer flows gets new ones until it has as many").change(only(&[WEB_1])),
        kind,
        0,
        &[WEB_1; 3],
    );
    let weighted = case("flows are shared by weight").change(weigh);
    vec![
        open(in_turn, kind, 0, WEBS.iter().chain(&WEBS).chain(&WEBS)),
        open(
            caught_up.change(only(&WEBS)),
            kind,
            10,
            &[WEB_2, WEB_3, WEB_3, WEB_2, WEB_2, WEB_3, WEB_1, WEB_2, WEB_3],
        ),
        open(weighted, kind, 0, [WEB_1, WEB_2, WEB_1, WEB_1, WEB_2, WEB_3].repeat(3).iter()),
        of_two(kind),
    ]
}

/// The slots of `random-two` with the weights of the backends.
const DRAWN: [usize; 6] = [0, 1, 0, 0, 1, 2];
const WEIGHTS: [u32; 3] = [3, 2, 1];

fn of_two(kind: Kind) -> Case {
    let name =
        format!("{kind}: of two slots that the hash chooses, the backend with fewer flows gets the flow");
    let weighted = world(kind, Picker::LeastOfTwo).with(weigh).with(|world| {
        world.services[0].slots = Some(DRAWN.to_vec());
    });
    let mut flows = [0; 3];
    (0..30).fold(Case::new(name, weighted), |case, number| {
        let hash = flow(kind, number).hash();
        let first = reduce(hash as u32, 6) as usize;
        let second = (first + 1 + reduce((hash >> 32) as u32, 5) as usize) % 6;
        let (first, second) = (DRAWN[first], DRAWN[second]);
        let is_less = flows[second] * WEIGHTS[first] < flows[first] * WEIGHTS[second];
        let place = if is_less { second } else { first };
        flows[place] += 1;
        case.step(flow(kind, number).first(), Opens(WEBS[place]))
    })
}

fn weigh(world: &mut World) {
    WEBS.iter().zip(WEIGHTS).for_each(|(name, weight)| world.find_mut(name).weight = weight);
}

fn tcp(kind: Kind) -> [Case; 3] {
    let case = |name: &str, change: fn(&mut World)| {
        Case::new(format!("{kind}: {name}"), world(kind, Picker::LeastOfAll).with(change))
    };
    let (one, two, three) = (flow(kind, 0), flow(kind, 1), flow(kind, 2));
    let mut ejected = case("an ejected backend is passed over, and gets one flow that probes it", |world| {
        world.services[0].ejects = true;
    })
    .step(two.syn(), Opens(WEB_1))
    .step(two.reply_rst(WEB_1), Returns)
    .establish(flow(kind, 3), WEB_2)
    .establish(flow(kind, 4), WEB_3);
    for number in 1..FAILURES as u16 {
        let refused = flow(kind, 100 + number);
        ejected = ejected.step(refused.syn(), Opens(WEB_1)).step(refused.reply_rst(WEB_1), Returns);
    }
    [
        case("a flow that both sides have closed does not count", |_| {})
            .establish(one, WEB_1)
            .establish(two, WEB_2)
            .establish(three, WEB_3)
            .step(two.fin(), Reaches(WEB_2))
            .step(two.reply_fin(WEB_2), Returns)
            .step(flow(kind, 3).syn(), Opens(WEB_2)),
        case("a backend that has just refused the client is passed over, although it has no flow", |world| {
            world.services[0].retries = true;
        })
        .step(one.syn(), Opens(WEB_1))
        .step(one.reply_rst(WEB_1), Drops(Reason::Retried))
        .step(two.syn(), Opens(WEB_2))
        .step(three.syn(), Opens(WEB_3))
        .step(one.syn(), Opens(WEB_2)),
        ejected
            .step(flow(kind, 200).syn(), Opens(WEB_3))
            .step(flow(kind, 201).syn(), Opens(WEB_2))
            .after_s(2)
            .step(flow(kind, 202).syn(), Opens(WEB_1))
            .step(flow(kind, 203).syn(), Opens(WEB_3))
            .step(flow(kind, 204).syn(), Opens(WEB_2)),
    ]
}
