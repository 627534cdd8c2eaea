//! A snapshot with one of everything that maps can hold.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use anyhow::Result;
use lb_common::{
    backend::{Backend, BackendId},
    counters::{BackendNumber, ServiceNumber},
    hop::{Hop, Interface},
    limits::{MAX_MEMBERS, MAX_PLACES},
    net::{Be16, Mac, Protocol},
    pool::{Picker, Pool, PoolNumber, SlotIndex, SlotRange, SourceSetNumber},
    quiet::Quiet,
    service::{Mode, Reject, Service},
};
use lb_userspace::{
    datapath::{Attached, Datapath as _, Listen, Op, Opened, ServiceValue, Snapshot},
    hash_key::HashKey,
    spec::BackendName,
};

/// Of the pickers that hash.
pub const KEY: HashKey = HashKey::new([1, 2, 3, 4, 5, 6]);

/// Writes one of everything, and returns the resulting snapshot.
pub fn put_everything(opened: &mut Opened) -> Result<Snapshot> {
    let (steps, want) = everything(&opened.attached);
    steps.iter().try_for_each(|step| opened.datapath.apply(step))?;
    Ok(want)
}

fn everything(attached: &[Attached]) -> (Vec<Op>, Snapshot) {
    let interface = |it: &Attached| Interface { mac: it.mac, zero: 0, mtu: it.mtu, attached: 1 };
    let hop = Hop {
        destination: Mac::new([2, 0, 0, 0, 0, 9]),
        source: attached[0].mac,
        interface: attached[0].index,
        mtu: 1500,
    };
    let backend = |id, address: IpAddr| Backend {
        id,
        counters: BackendNumber(3),
        service_counters: ServiceNumber(0),
        accepts: 1,
        address: address.into(),
        port: Be16::new(8080),
        hop,
        ..Backend::default()
    };
    let v4: IpAddr = literal("10.0.0.11");
    let mut want = Snapshot {
        backends: BTreeMap::from([(8, backend(BackendId(8), v4))]),
        backend_names: BTreeMap::from([(BackendNumber(3), BackendName::new("web", "web-1"))]),
        service_names: BTreeMap::from([(ServiceNumber(0), "web".to_owned())]),
        // The last two are one after the other, and only the first of them is in force; of slots in which nothing is in
        // force it is not known where a range began.
        slots: BTreeMap::from([
            (SlotIndex(0), vec![BackendId(8)].into()),
            (SlotIndex(5), vec![BackendId(8); 3].into()),
            (SlotIndex(20), vec![BackendId(8); 2].into()),
            (SlotIndex(22), vec![BackendId(8); 2].into()),
        ]),
        members: BTreeMap::from([
            (PoolNumber(0), vec![BackendId(8)]),
            (PoolNumber(1), vec![BackendId(8); MAX_MEMBERS]),
        ]),
        sources: BTreeMap::from([
            (SourceSetNumber(1), sources(&["10.0.0.1"])),
            (SourceSetNumber(6), sources(&["10.0.0.1", "10.0.0.2", "10.0.0.3"])),
        ]),
        pools: BTreeMap::from([
            (
                PoolNumber(0),
                Pool::new(slots(SlotIndex(0), 1), Picker::Turn, Mode::FullNat, SourceSetNumber(1)),
            ),
            (
                PoolNumber(1),
                Pool::new(slots(SlotIndex(20), 2), Picker::SourceHash, Mode::Nat, SourceSetNumber::NONE),
            ),
            (
                PoolNumber(1023),
                Pool::new(SlotRange::default(), Picker::FlowHash, Mode::FullNat, SourceSetNumber::NONE),
            ),
        ]),
        services: BTreeMap::from([
            (
                listen("192.0.2.10:80"),
                ServiceValue {
                    pool: PoolNumber(0),
                    counters: ServiceNumber(0),
                    reject: Reject::Reset,
                    computed: None,
                },
            ),
            (
                listen("[2001:db8::10]:80"),
                ServiceValue {
                    pool: PoolNumber(1023),
                    counters: ServiceNumber(0),
                    reject: Reject::Drop,
                    computed: Some(PoolNumber(1)),
                },
            ),
            (
                listen("192.0.2.10:0"),
                ServiceValue {
                    pool: Service::NO_POOL,
                    counters: ServiceNumber(0),
                    reject: Reject::Drop,
                    computed: None,
                },
            ),
        ]),
        origins: BTreeMap::from([(listen("[fd00::11]:8080"), listen("[2001:db8::10]:80"))]),
        interfaces: attached.iter().map(|it| (it.index, interface(it))).collect(),
        next_backend_id: BackendId(9),
        hop_generation: 7,
        hash_key: KEY,
        quiet: Quiet::Always,
    };
    let full: Vec<String> = (0..16).map(|host| format!("fd00::{host:x}1")).collect();
    want.sources.insert(SourceSetNumber(8), sources(&full.iter().map(String::as_str).collect::<Vec<_>>()));

    let mut steps = vec![
        Op::SetNextBackendId(BackendId(9)),
        Op::SetHopGeneration(7),
        Op::SetHashKey(KEY),
        Op::SetQuiet(Quiet::Always),
    ];
    steps.extend(want.interfaces.iter().map(|(index, it)| Op::PutInterface(*index, *it)));
    steps.extend(want.backend_names.iter().map(|(number, name)| Op::PutBackendName(*number, name.clone())));
    steps.extend(want.service_names.iter().map(|(number, name)| Op::PutServiceName(*number, name.clone())));
    // The place was in use before.
    steps.push(Op::PutBackend(backend(BackendId(8 + MAX_PLACES), v4)));
    steps.extend(want.backends.values().map(|backend| Op::PutBackend(*backend)));
    steps.extend(want.slots.iter().map(|(offset, ids)| Op::PutSlots(*offset, ids.clone())));
    steps.extend(want.members.iter().map(|(number, ids)| Op::PutMembers(*number, ids.clone())));
    steps.extend(want.sources.iter().map(|(number, sources)| Op::PutSources(*number, sources.clone())));
    steps.extend(want.pools.iter().map(|(number, pool)| Op::PutPool(*number, *pool)));
    steps.extend(want.services.iter().map(|(listen, value)| Op::PutService(*listen, *value)));
    steps.extend(want.origins.iter().map(|(backend, listen)| Op::PutOrigin(*backend, *listen)));
    (steps, want)
}

/// Steps that remove everything.
pub fn removal(have: &Snapshot) -> Vec<Op> {
    let mut steps: Vec<Op> = have.origins.keys().copied().map(Op::DeleteOrigin).collect();
    steps.extend(have.services.keys().copied().map(Op::DeleteService));
    steps.extend(have.pools.keys().copied().map(Op::DeletePool));
    steps.extend(have.members.keys().copied().map(Op::DeleteMembers));
    steps.extend(have.slots.iter().map(|(offset, ids)| Op::DeleteSlots(slots(*offset, ids.len() as u32))));
    steps.extend(have.sources.keys().copied().map(Op::DeleteSources));
    steps.extend(have.backends.keys().copied().map(Op::DeleteBackend));
    steps.extend(have.service_names.keys().copied().map(Op::DeleteServiceName));
    steps.extend(have.backend_names.keys().copied().map(Op::DeleteBackendName));
    steps.extend(have.interfaces.keys().copied().map(Op::DeleteInterface));
    steps
}

fn slots(offset: SlotIndex, length: u32) -> SlotRange {
    SlotRange { offset, length }
}

fn sources(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|source| literal(source)).collect()
}

fn listen(text: &str) -> Listen {
    let address: SocketAddr = literal(text);
    Listen { address: address.ip(), port: Be16::new(address.port()), protocol: Protocol::Tcp }
}

/// Parses an address.
#[expect(clippy::unwrap_used, reason = "a literal that is none is a mistake of the test")]
pub fn literal<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}
