//! Which slot a new flow gets: in turn, by the client's address, or by the tuple.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{
    net::{Ports, V4, V6},
    pool::Picker,
    reason::Reason,
};
use lb_ebpf::table::hash::{self, reduce};

use crate::{
    case::{Case, Opens, Reaches, answered},
    dialogue::{Dialogue, flow},
    world::{HASH_KEYS, Kind, WEB_1, WEBS, World},
};

/// The backends of a small table, by slot.
const TABLE: [usize; 7] = [0, 0, 1, 0, 2, 0, 0];
const CLIENTS: u8 = 12;

/// Every kind.
pub fn rows() -> Vec<Case> {
    Kind::all().into_iter().flat_map(every_kind).collect()
}

fn every_kind(kind: Kind) -> Vec<Case> {
    let turn = with_table(kind, Picker::Turn);
    let flow = |number| flow(kind, number);
    let in_turn =
        Case::new(format!("{kind}: each slot has its turn, so a backend with more slots gets more"), turn);
    let in_turn = (0..)
        .zip(TABLE.iter().chain(&TABLE))
        .fold(in_turn, |case, (number, place)| case.step(flow(number).first(), Opens(WEBS[*place])));
    let mut rows = vec![in_turn, by_source(kind), by_tuple(kind)];
    for picker in [Picker::SourceHash, Picker::FlowHash] {
        rows.extend(hashed(kind, picker));
    }
    rows
}

fn by_source(kind: Kind) -> Case {
    let name = format!("{kind}: by source hash, all flows of a client go to the backend of its address");
    let clients = (1..=CLIENTS).map(|number| Dialogue::new(kind).client(kind.ip.client(number)));
    clients.fold(Case::new(name, with_table(kind, Picker::SourceHash)), |case, client| {
        let backend = WEBS[TABLE[slot(source_hash(client.client.ip()))]];
        case.step(client.first(), Opens(backend)).step(client.port(40_001).first(), Opens(backend))
    })
}

fn by_tuple(kind: Kind) -> Case {
    let name = format!("{kind}: by flow hash, the whole tuple decides");
    let flows = (0..u16::from(CLIENTS)).map(|number| flow(kind, number));
    flows.fold(Case::new(name, with_table(kind, Picker::FlowHash)), |case, flow| {
        case.step(flow.first(), Opens(WEBS[TABLE[slot(flow.hash_by(&HASH_KEYS))]]))
    })
}

fn hashed(kind: Kind, picker: Picker) -> [Case; 2] {
    let one = Dialogue::new(kind);
    let hash = match picker {
        Picker::FlowHash => one.hash_by(&HASH_KEYS),
        Picker::SourceHash | Picker::Turn | Picker::LeastOfAll | Picker::LeastOfTwo => {
            source_hash(one.client.ip())
        }
    };
    let backend = WEBS[slot(hash) % WEBS.len()];
    let world = World::new(kind);
    let table: Vec<usize> = (0..TABLE.len()).map(|slot| slot % WEBS.len()).collect();
    let moved: Vec<usize> = table.iter().map(|place| (place + 1) % WEBS.len()).collect();
    let to = move |world: &mut World, slots: &[usize]| {
        (world.services[0].picker, world.services[0].slots) = (picker, Some(slots.to_vec()));
    };
    [
        Case::new(
            format!(
                "{kind}: a known flow keeps its backend when the scheduler or the table changes ({picker:?})"
            ),
            world.clone(),
        )
        .establish(one, WEB_1)
        .change(move |world| to(world, &table))
        .step(one.later(), Reaches(WEB_1))
        .change(move |world| to(world, &moved))
        .step(one.later(), Reaches(WEB_1))
        .records(1),
        Case::new(format!("{kind}: without slots, the reason is no_backend ({picker:?})"), world)
            .change(move |world| to(world, &[0, 1, 2, 0, 1, 2, 0]))
            .step(one.first(), Opens(backend))
            .change(move |world| to(world, &[]))
            .step(one.port(40_001).first(), answered(kind.protocol, Reason::NoBackend)),
    ]
}

fn with_table(kind: Kind, picker: Picker) -> World {
    World::new(kind).with(|world| {
        (world.services[0].picker, world.services[0].slots) = (picker, Some(TABLE.to_vec()));
    })
}

fn slot(hash: u64) -> usize {
    reduce(hash as u32, TABLE.len() as u32) as usize
}

/// The hash of an address alone.
pub fn source_hash(client: IpAddr) -> u64 {
    let ports = Ports::from_raw(0);
    match client {
        IpAddr::V4(client) => {
            let nowhere: V4 = Ipv4Addr::UNSPECIFIED.into();
            hash::v4(&HASH_KEYS, client.into(), nowhere, ports, 0)
        }
        IpAddr::V6(client) => {
            let nowhere: V6 = Ipv6Addr::UNSPECIFIED.into();
            hash::v6(&HASH_KEYS, client.into(), nowhere, ports, 0)
        }
    }
}
