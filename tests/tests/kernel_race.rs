//! The flow table under two CPUs at once: no mixed record, no tuple with two owners, nothing lost at rest.
//!
//! `XLB_RACE_RUNS` says how many runs there are (default: 80 million over both families), `XLB_BPF_DIR` is the
//! directory of the object under test. Built with one of `lb-ebpf`'s features `without_generation_check`,
//! `without_rescan` or `without_same_flow_check` the test fails: docs/flow-table.md has the figures.

use std::{collections::BTreeMap, panic::resume_unwind, thread, time::Instant};

use anyhow::{Context as _, Result};
use aya::{
    TestRun as _, TestRunOptions,
    maps::{Array, PerCpuArray},
};
use lb_common::{
    backend::Backend,
    cell::Word,
    counters::{BackendNumber, ServiceNumber},
    ejection::Ejection,
    flow::{Bucket, RecordIndex, ReplyEntry, ReplyLine, Shape, State},
    hop::{Hop, Interface, InterfaceIndex},
    limits::SLOT_TRIES,
    net::{Address, Be16, Mac, Protocol, V4, V6},
    pool::{
        Members, Picker, Pool, PoolNumber, SlotIndex, SlotLine, SlotRange, SourceSet, SourceSetNumber, Turn,
    },
    service::{Mode, Service, ServiceKey},
    settings::{PortPool, Settings},
};
use lb_ebpf::{
    family::{Family, RecordOf, Tuple},
    table::hash::reduce,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tests::{
    bench::object::Object,
    lab::{self, Lab, Namespace, Topology},
};
use tests_ebpf::race::{
    self as world, BACKENDS, CLIENT, CLIENTS, Findings, LISTEN, MOST_EJECTED, POOLS, SERVICE_PORT, SOURCE,
    SOURCES,
};

/// Runs for each family.
const RUNS: u64 = 40_000_000;
/// Maximum runs of a CPU between two checks of the table at rest.
const ROUND: u32 = 5_000_000;
const CPUS: usize = 2;

/// How the flows of a pool are shared. Up to half of the backends of each pool are ejected.
struct Rules {
    mode: Mode,
    picker: Picker,
    retries: u16,
    max_flows: u32,
    slots: u32,
}

/// By number. The program expects these modes.
const RULES: [Rules; POOLS as usize] = [
    Rules { mode: Mode::FullNat, picker: Picker::Turn, retries: 1, max_flows: 0, slots: FEW },
    Rules { mode: Mode::FullNat, picker: Picker::LeastOfAll, retries: 0, max_flows: 2, slots: FEW },
    Rules { mode: Mode::Nat, picker: Picker::Turn, retries: 0, max_flows: 2, slots: SKEWED },
    Rules { mode: Mode::Nat, picker: Picker::LeastOfAll, retries: 1, max_flows: 0, slots: FEW },
];
/// Two slots for each backend.
const FEW: u32 = 2 * BACKENDS;
/// More than a flow tries. The first backend has all but the last of them: if it is full, the other one is found among the
/// members.
const SKEWED: u32 = 2 * SLOT_TRIES;
const _: () = assert!(SKEWED <= LINES * SlotLine::SLOTS as u32);
/// Lines of slots for each pool.
const LINES: u32 = 2;
const BACKEND_ADDRESSES: u32 = 0x4000;
/// The index of `eth0`: `lo` is 1.
const INTERFACE: u32 = 2;

/// Room for 16 of the 64 flows. At most 12 of them may be half-open.
const SHAPE: Shape = Shape { buckets: 2, lines: 2, half_open: 12, half_open_batch: 2 };

#[test]
fn ipv4_flows_keep_their_records_apart() {
    race::<V4>("race4", world::v4, Address::v4).unwrap();
}

#[test]
fn ipv6_flows_keep_their_records_apart() {
    race::<V6>("race6", world::v6, Address::v6).unwrap();
}

fn race<F: Family + PartialEq>(
    program: &str,
    number: fn(u32) -> F::Address,
    key: fn(F::Address) -> Address,
) -> Result<()> {
    let lab = Lab::build(&Topology::new("race", lab::Shape::TwoNics).backends(1))?;
    let mut race = Object::load_sized("race", SHAPE, SHAPE, 1)?;
    let settings = furnish(&mut race, |n| key(number(n)))?;
    introduce_clients(&lab.xlb)?;
    let runs = std::env::var("XLB_RACE_RUNS").map_or(Ok(RUNS), |text| text.parse())?;
    let family = if program == "race4" { '4' } else { '6' };

    let start = Instant::now();
    let mut done = 0;
    let mut at_rest = BTreeMap::new();
    while done < runs {
        let each = u32::try_from((runs - done).div_ceil(CPUS as u64)).map_or(ROUND, |left| left.min(ROUND));
        run_on_all_cpus(&lab.xlb, &race, program, each)?;
        done += u64::from(each) * CPUS as u64;
        for problem in look_at_rest::<F>(&race, family, &settings)? {
            *at_rest.entry(problem).or_insert(0u64) += 1;
        }
    }
    let findings = sum(&race)?;
    println!("{program}: {done} runs in {:.1?}: {findings:?}, at rest: {at_rest:?}", start.elapsed());

    assert!(findings.requests > done / 10 && findings.replies > done / 100, "too little was forwarded");
    for (what, count) in
        [("retried", findings.retried), ("full", findings.full), ("ejected", findings.ejected)]
    {
        assert!(count > done / 10_000, "too little was {what}");
    }
    assert_eq!(findings.mixed_requests, 0, "requests were rewritten with another flow's fields");
    assert_eq!(findings.mixed_replies, 0, "replies were rewritten with another flow's fields");
    assert_eq!(findings.replies_of_two, 0, "a reply had two records");
    assert_eq!(findings.requests_of_two, 0, "a request had two records");
    assert_eq!(findings.negative_loads, 0, "the number of a backend's flows was negative");
    assert_eq!(findings.negative_half_open, 0, "the number of half-open flows was negative");
    assert_eq!(findings.too_many_ejected, 0, "too many backends were ejected");
    assert!(at_rest.is_empty(), "at rest: {at_rest:?}");
    Ok(())
}

/// One long run on each CPU: setting up a run takes 15 ms, in which nothing races.
fn run_on_all_cpus(namespace: &Namespace, race: &Object, program: &str, each: u32) -> Result<()> {
    let packet = [0; 64];
    thread::scope(|scope| {
        let runners: Vec<_> = (0..CPUS)
            .map(|cpu| {
                scope.spawn(move || {
                    namespace.inside(|| {
                        let mut only = CpuSet::new();
                        only.set(cpu)?;
                        sched_setaffinity(Pid::from_raw(0), &only)?;
                        let options = TestRunOptions {
                            data_in: Some(&packet),
                            repeat: each,
                            ..TestRunOptions::default()
                        };
                        race.program(program)?.test_run(options).context("run the program")
                    })
                })
            })
            .collect();
        let join =
            |runner: thread::ScopedJoinHandle<'_, _>| runner.join().unwrap_or_else(|it| resume_unwind(it));
        runners.into_iter().try_for_each(|runner| join(runner).map(drop))
    })
}

fn sum(race: &Object) -> Result<Findings> {
    let findings: PerCpuArray<_, Findings> = race.map("FINDINGS")?.try_into()?;
    Ok(findings.get(&0, 0)?.iter().fold(Findings::default(), |sum, one| Findings {
        requests: sum.requests + one.requests,
        replies: sum.replies + one.replies,
        refused: sum.refused + one.refused,
        contended: sum.contended + one.contended,
        retried: sum.retried + one.retried,
        full: sum.full + one.full,
        ejected: sum.ejected + one.ejected,
        mixed_requests: sum.mixed_requests + one.mixed_requests,
        mixed_replies: sum.mixed_replies + one.mixed_replies,
        replies_of_two: sum.replies_of_two + one.replies_of_two,
        requests_of_two: sum.requests_of_two + one.requests_of_two,
        negative_loads: sum.negative_loads + one.negative_loads,
        negative_half_open: sum.negative_half_open + one.negative_half_open,
        too_many_ejected: sum.too_many_ejected + one.too_many_ejected,
    }))
}

/// What must not exist while no CPU writes.
fn look_at_rest<F: Family + PartialEq>(
    race: &Object,
    family: char,
    settings: &Settings,
) -> Result<Vec<&'static str>> {
    let buckets = race.mapped::<Bucket<RecordOf<F>>>(&format!("FLOWS{family}"))?;
    let lines = race.mapped::<ReplyLine>(&format!("REPLY_INDEX{family}"))?;
    let half_open = race.mapped::<Word>(&format!("HALF_OPEN{family}"))?;
    let records: Vec<&RecordOf<F>> = buckets.iter().flat_map(|bucket| &bucket.way).collect();
    let control = |record: &RecordOf<F>| lb_common::flow::Control(record.control.load());
    let holders: Vec<_> =
        (0..records.len()).filter(|&number| control(records[number]).state().holds_tuple()).collect();
    let mut problems = Vec::new();

    if records.iter().any(|record| control(record).state() == State::BUSY) {
        problems.push("a record is busy");
    }
    let is_half_open = |&&number: &&usize| control(records[number]).state().is_half_open();
    let own: PerCpuArray<_, u64> = race.map(&format!("HALF_OPEN_CPU{family}"))?.try_into()?;
    let word = own.get(&0, 0)?.iter().fold(half_open[0].load(), |sum, own| sum.wrapping_add(*own));
    if holders.iter().filter(is_half_open).count() as u64 != word {
        problems.push("the number of half-open flows is wrong");
    }
    let backends: Array<_, Backend> = race.map("BACKENDS")?.try_into()?;
    let turns = race.mapped::<Turn>("TURNS")?;
    for pool in 0..POOLS {
        let mut ejected = 0;
        for id in (0..BACKENDS).map(|number| world::backend(pool, number)) {
            let is_its = |number: &&usize| {
                let record = records[**number];
                record.owner.get().backend() == id && control(record).state().is_counted()
            };
            let [flows, ejection, ..] = backends.get(&id.0, 0)?.load;
            if holders.iter().filter(is_its).count() as u64 != flows {
                problems.push("the number of a backend's flows is wrong");
            }
            ejected += u64::from(Ejection(ejection).is_ejected());
        }
        if turns[pool as usize].ejected.load() != ejected || ejected > u64::from(MOST_EJECTED) {
            problems.push("the number of ejected backends is wrong");
        }
    }
    for (i, &one) in holders.iter().enumerate() {
        let (this, state) = (records[one], control(records[one]).state());
        let hash = F::hash(&settings.keys, &reply_of::<F>(this));
        let entry = ReplyEntry::new((hash >> 32) as u32, control(this).generation(), RecordIndex(one as u32));
        let line = &lines[reduce(hash as u32, SHAPE.lines) as usize];
        if !line.entry.iter().any(|word| word.load() == entry.0) {
            problems.push("a flow has no reply index entry");
        }
        for &other in &holders[i + 1..] {
            let (that, that_state) = (records[other], control(records[other]).state());
            if reply_of::<F>(this) == reply_of::<F>(that) {
                problems.push("two flows have one reply");
            }
            let answer = state.is_live() && that_state.is_live();
            let is_challenge = state.is_reopening() != that_state.is_reopening();
            if request_of::<F>(this) == request_of::<F>(that) && answer && !is_challenge {
                problems.push("two flows have one request");
            }
        }
    }
    let entries = lines.iter().flat_map(|line| &line.entry).map(|word| ReplyEntry(word.load()));
    for entry in entries.filter(|entry| entry.0 != 0) {
        let owner = control(records[entry.record().0 as usize]);
        if !owner.state().holds_tuple() || owner.generation() as u8 != entry.generation() {
            problems.push("a reply index entry leads to no flow");
        }
    }
    Ok(problems)
}

fn request_of<F: Family + PartialEq>(record: &RecordOf<F>) -> Tuple<F> {
    Tuple {
        source: record.client.get(),
        destination: record.listen.get(),
        ports: record.request_ports.get(),
        protocol: record.owner.get().protocol().into(),
    }
}

fn reply_of<F: Family + PartialEq>(record: &RecordOf<F>) -> Tuple<F> {
    Tuple {
        source: record.backend.get(),
        destination: record.source.get(),
        ports: record.reply_ports.get(),
        protocol: record.owner.get().protocol().into(),
    }
}

/// A service of each pool, with few source ports.
fn furnish(race: &mut Object, address: impl Fn(u32) -> Address) -> Result<Settings> {
    let settings = Settings {
        keys: [
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
            3,
            5,
        ],
        shape4: SHAPE,
        shape6: SHAPE,
        own_ports: PortPool { low_first: 1024, low_count: 2, high_first: 0, high_count: 0 },
        next_backend_id: world::backend(POOLS, 0),
        ..Settings::default()
    };
    race.set(Settings::SECTION, 0, settings)?;
    race.set("INTERFACES", INTERFACE, Interface { mac: world::mac(0), zero: 0, mtu: 1500, attached: 1 })?;
    for (pool, rules) in (0..POOLS).zip(&RULES) {
        for number in 0..BACKENDS {
            let backend = backend(pool, number, rules, address(BACKEND_ADDRESSES + number));
            race.set("BACKENDS", backend.id.0, backend)?;
        }
        let set = SourceSetNumber(1 + pool);
        let sources = SourceSet { address: std::array::from_fn(|n| address(SOURCE + n as u32 % SOURCES)) };
        let first = pool * LINES * SlotLine::SLOTS as u32;
        let slots = SlotRange { offset: SlotIndex(first), length: rules.slots };
        let lines = race.mapped::<SlotLine>("SLOTS")?;
        for slot in 0..rules.slots {
            let number = if rules.slots == FEW { slot / 2 } else { (slot + 1) / rules.slots };
            let place = SlotIndex(first + slot);
            lines[SlotLine::line(place) as usize].id[SlotLine::place(place)]
                .store(world::backend(pool, number).0);
        }
        let members = &race.mapped::<Members>("MEMBERS")?[pool as usize];
        members.id.iter().zip(0..BACKENDS).for_each(|(id, number)| id.store(world::backend(pool, number).0));
        members.count.store(BACKENDS);
        race.set("SOURCES", set.0, sources)?;
        race.set("POOLS", pool, Pool::new(slots, rules.picker, rules.mode, set))?;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let key = ServiceKey::new(address(LISTEN + pool), Be16::new(SERVICE_PORT), protocol.number());
            race.listen(
                key,
                Service { pool: PoolNumber(pool), counters: ServiceNumber(0), reject: 0, computed: 0 },
            )?;
        }
    }
    Ok(settings)
}

fn backend(pool: u32, number: u32, rules: &Rules, address: Address) -> Backend {
    let id = world::backend(pool, number);
    Backend {
        id,
        counters: BackendNumber(id.0),
        accepts: Backend::ACCEPTS,
        address,
        port: Be16::new(8080),
        retries: rules.retries,
        most_ejected: MOST_EJECTED,
        hop: Hop {
            destination: Mac([id.0 as u16; 3]),
            interface: InterfaceIndex(INTERFACE),
            mtu: 1500,
            ..Hop::default()
        },
        pool: PoolNumber(pool),
        weight: 100,
        max_flows: rules.max_flows,
        ..Backend::default()
    }
}

/// Every client is a neighbour with an Ethernet address of its own.
fn introduce_clients(namespace: &Namespace) -> Result<()> {
    let mut lines = "route add 10.0.0.0/16 dev eth0\nroute add fd00::/16 dev eth0\n".to_owned();
    for client in CLIENT..CLIENT + CLIENTS {
        let addresses = [Address::v4(world::v4(client)), Address::v6(world::v6(client))];
        let mac = world::mac(client).to_bytes().map(|byte| format!("{byte:02x}")).join(":");
        for address in addresses {
            lines += &format!("neigh add {} lladdr {mac} nud permanent dev eth0\n", address.to_ip());
        }
    }
    namespace.ip(&lines)
}
