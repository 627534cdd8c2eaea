//! Writes a world into the program's maps, and reads back flows and counters.

use std::{
    array,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, DevMap, HashMap, Map, MapData, PerCpuArray, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use lb_common::{
    backend::{Backend, BackendId},
    clock::Ticks,
    counters::{ActionCounters, BackendCounters, ServiceCounters, Tally},
    event::NeighbourWanted,
    flow::{
        Control, Deltas, ENTRIES_PER_LINE, FlowId, Owner, Proof, Record4, Record6, RecordIndex, State, WAYS,
    },
    hop::{ClientHop, HopStamp, Interface},
    limits::MAX_MEMBERS,
    net::{Ports, V4, V6},
    pool::{SlotLine, SourceSet, Turn},
    quiet::FirstSeen,
    reason::Reason,
    service::{Filter, ServiceKey},
    settings::Settings,
};
use lb_ebpf::table::scratch::Scratch;

use crate::{
    engine::{Counters, Flow, MAX_BUCKETS, MAX_IDS, MAX_NUMBERS, Memory},
    world::{LINES, Maps, network::INTERFACES},
};

const BUCKET4: usize = size_of::<Record4>() * WAYS;
const TURN: usize = size_of::<Turn>() / size_of::<u64>();
const BUCKET6: usize = size_of::<Record6>() * WAYS;

fn put<T: Pod>(ebpf: &mut Ebpf, name: &str, index: u32, value: T) -> Result<()> {
    let map = ebpf.map_mut(name).with_context(|| format!("there is no map {name}"))?;
    let mut array: Array<_, T> = map.try_into().with_context(|| format!("open {name}"))?;
    array.set(index, value, 0).with_context(|| format!("write {name}"))
}

fn read<'a, T: Pod>(ebpf: &'a Ebpf, name: &str) -> Result<Array<&'a MapData, T>> {
    Array::try_from(find(ebpf, name)?).with_context(|| format!("open {name}"))
}

fn find<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a Map> {
    ebpf.map(name).with_context(|| format!("there is no map {name}"))
}

/// Empties the map that only nodes which miss a peer use, and which is large.
pub fn forget_first_seen(ebpf: &mut Ebpf) -> Result<()> {
    (0..FirstSeen::ELEMENTS).try_for_each(|place| put(ebpf, "FIRST_SEEN", place, 0u64))
}

/// Empties the other maps.
pub fn clear(ebpf: &mut Ebpf) -> Result<()> {
    for index in 0..MAX_BUCKETS {
        put(ebpf, "FLOWS4", index, [0u8; BUCKET4])?;
        put(ebpf, "FLOWS6", index, [0u8; BUCKET6])?;
        put(ebpf, "REPLY_INDEX4", index, [0u64; ENTRIES_PER_LINE])?;
        put(ebpf, "REPLY_INDEX6", index, [0u64; ENTRIES_PER_LINE])?;
    }
    put(ebpf, "ANSWERS", 0, 0u64)?;
    put(ebpf, "HALF_OPEN4", 0, 0u64)?;
    put(ebpf, "HALF_OPEN6", 0, 0u64)?;
    zero::<u64>(ebpf, "HALF_OPEN_CPU4", 0)?;
    zero::<u64>(ebpf, "HALF_OPEN_CPU6", 0)?;
    put_for_each_cpu(ebpf, "SCRATCH4", 0, [0u8; size_of::<Scratch<V4>>()])?;
    put_for_each_cpu(ebpf, "SCRATCH6", 0, [0u8; size_of::<Scratch<V6>>()])?;
    for index in 0..MAX_IDS {
        put(ebpf, "BACKENDS", index, Backend::default())?;
    }
    for index in 0..MAX_NUMBERS {
        put(ebpf, "TURNS", index, [0u64; TURN])?;
        put(ebpf, "POOLS", index, 0u64)?;
        zero::<BackendCounters>(ebpf, "BACKEND_COUNTERS", index)?;
        zero::<ServiceCounters>(ebpf, "SERVICE_COUNTERS", index)?;
    }
    for line in 0..MAX_NUMBERS * LINES {
        put(ebpf, "SLOTS", line, [0u32; SlotLine::SLOTS])?;
    }
    for (_, index) in INTERFACES {
        zero::<ActionCounters>(ebpf, "ACTIONS", index)?;
    }
    for reason in Reason::ALL {
        zero::<Tally>(ebpf, "REASONS", *reason as u32)?;
    }
    Ok(())
}

fn zero<T: Pod + Default>(ebpf: &mut Ebpf, name: &str, index: u32) -> Result<()> {
    put_for_each_cpu(ebpf, name, index, T::default())
}

fn put_for_each_cpu<T: Pod>(ebpf: &mut Ebpf, name: &str, index: u32, value: T) -> Result<()> {
    let map = ebpf.map_mut(name).with_context(|| format!("there is no map {name}"))?;
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    let values = PerCpuValues::try_from(vec![value; cpus])?;
    PerCpuArray::try_from(map)?.set(index, values, 0).with_context(|| format!("write {name}"))
}

/// Writes what a controller would write.
pub fn load(ebpf: &mut Ebpf, maps: &Maps) -> Result<()> {
    put::<Settings>(ebpf, Settings::SECTION, 0, maps.settings)?;
    put(ebpf, Filter::SECTION, 0, *maps.filter)?;
    load_entries(ebpf, "SERVICES", &maps.services)?;
    load_entries(ebpf, "ORIGINS", &maps.origins)?;
    for (line, ids) in &maps.slots {
        put(ebpf, "SLOTS", *line, *ids)?;
    }
    for (number, members) in (0..).zip(&maps.members) {
        let ids = members.id.each_ref().map(|id| id.load());
        let words: [u32; 1 + MAX_MEMBERS] =
            array::from_fn(|at| if at == 0 { members.count.load() } else { ids[at - 1] });
        put(ebpf, "MEMBERS", number, words)?;
    }
    for (number, set) in &maps.sources {
        put::<SourceSet>(ebpf, "SOURCES", number.0, *set)?;
    }
    for (number, pool) in (0..).zip(&maps.pools) {
        put(ebpf, "POOLS", number, *pool)?;
    }
    // Flows of this world have no higher id.
    for place in 0..maps.settings.next_backend_id.0 {
        let backend = maps.backends.iter().find(|it| it.id == BackendId(place)).copied();
        let load = read::<Backend>(ebpf, "BACKENDS")?.get(&place, 0)?.load;
        put::<Backend>(ebpf, "BACKENDS", place, Backend { load, ..backend.unwrap_or_default() })?;
    }
    for (index, interface) in &maps.interfaces {
        put::<Interface>(ebpf, "INTERFACES", *index, *interface)?;
        let devices = ebpf.map_mut("DEVICES").context("there is no map DEVICES")?;
        DevMap::try_from(devices)?.set(*index, *index, None, 0).context("write DEVICES")?;
    }
    Ok(())
}

fn load_entries<V: Pod>(ebpf: &mut Ebpf, name: &str, entries: &[(ServiceKey, V)]) -> Result<()> {
    let map = ebpf.map_mut(name).with_context(|| format!("there is no map {name}"))?;
    let mut map: HashMap<_, ServiceKey, V> = map.try_into()?;
    let there: Vec<ServiceKey> = map.keys().collect::<Result<_, _>>()?;
    for gone in there.iter().filter(|key| !entries.iter().any(|(it, _)| it == *key)) {
        map.remove(gone)?;
    }
    for (key, value) in entries {
        map.insert(key, value, 0)?;
    }
    Ok(())
}

/// The neighbour request since the last run.
pub fn asked(ebpf: &mut Ebpf) -> Result<Vec<NeighbourWanted>> {
    let mut ring = RingBuf::try_from(ebpf.map_mut("WANTED").context("there is no map WANTED")?)?;
    let mut asked = Vec::new();
    while let Some(item) = ring.next() {
        let (address, hop) =
            item.split_first_chunk::<16>().context("a neighbour request without an address")?;
        let hop =
            ClientHop(u64::from_ne_bytes(hop.try_into().context("a neighbour request of the wrong size")?));
        let address = IpAddr::from(*address).to_canonical().into();
        asked.push(NeighbourWanted { address, hop });
    }
    Ok(asked)
}

/// The flows that were reported since the last run.
pub fn reported(ebpf: &mut Ebpf) -> Result<Vec<FlowId>> {
    let mut ring = RingBuf::try_from(ebpf.map_mut("FLOW_EVENTS").context("there is no map FLOW_EVENTS")?)?;
    let mut reported = Vec::new();
    while let Some(item) = ring.next() {
        let bytes = <[u8; 8]>::try_from(&*item).context("an id of a flow has 8 bytes")?;
        reported.push(FlowId(u64::from_ne_bytes(bytes)));
    }
    Ok(reported)
}

/// Sums over all CPUs.
pub fn counters(ebpf: &Ebpf) -> Result<Counters> {
    let numbers: Vec<u32> = (0..MAX_NUMBERS).collect();
    let reasons: Vec<u32> = Reason::ALL.iter().map(|reason| *reason as u32).collect();
    let indices = INTERFACES.map(|(_, index)| index);
    Ok(Counters {
        reasons: sums(ebpf, "REASONS", &reasons, add)?,
        actions: sums(ebpf, "ACTIONS", &indices, |sum: &mut ActionCounters, one| {
            sum.passed += one.passed;
            sum.dropped += one.dropped;
            sum.transmitted += one.transmitted;
            sum.redirected += one.redirected;
            sum.rejected += one.rejected;
        })?,
        backends: sums(ebpf, "BACKEND_COUNTERS", &numbers, |sum: &mut BackendCounters, one| {
            add(&mut sum.forwarded, one.forwarded);
            add(&mut sum.returned, one.returned);
            sum.new_flows += one.new_flows;
            sum.refused += one.refused;
            sum.unanswered += one.unanswered;
        })?,
        services: sums(ebpf, "SERVICE_COUNTERS", &numbers, |sum: &mut ServiceCounters, one| {
            add(&mut sum.refused, one.refused);
            sum.retried_flows += one.retried_flows;
        })?,
    })
}

fn add(sum: &mut Tally, one: Tally) {
    sum.packets += one.packets;
    sum.bytes += one.bytes;
}

fn sums<T: Pod + Default>(
    ebpf: &Ebpf,
    name: &str,
    indices: &[u32],
    add: impl Fn(&mut T, T),
) -> Result<Vec<T>> {
    let map = PerCpuArray::try_from(find(ebpf, name)?)?;
    let mut sums = Vec::new();
    for index in indices {
        let mut sum = T::default();
        map.get(index, 0)?.iter().for_each(|one| add(&mut sum, *one));
        sums.push(sum);
    }
    Ok(sums)
}

/// The number of half-open flows: the shared word, and what each CPU has not yet added to it.
fn half_open(ebpf: &Ebpf, family: char) -> Result<u64> {
    let shared = read::<u64>(ebpf, &format!("HALF_OPEN{family}"))?.get(&0, 0)?;
    let own = sums(ebpf, &format!("HALF_OPEN_CPU{family}"), &[0], |sum: &mut u64, own| {
        *sum = sum.wrapping_add(own)
    })?;
    Ok(own.iter().fold(shared, |sum, own| sum.wrapping_add(*own)))
}

/// All records and entries of the reply index.
pub fn memory(ebpf: &Ebpf) -> Result<Memory> {
    let mut memory = Memory::default();
    let (flows4, flows6) = (read::<[u8; BUCKET4]>(ebpf, "FLOWS4")?, read::<[u8; BUCKET6]>(ebpf, "FLOWS6")?);
    for index in 0..MAX_BUCKETS {
        records(&mut memory, index, &flows4.get(&index, 0)?);
    }
    for index in 0..MAX_BUCKETS {
        records(&mut memory, index, &flows6.get(&index, 0)?);
    }
    for (family, name) in ["REPLY_INDEX4", "REPLY_INDEX6"].into_iter().enumerate() {
        let lines = read::<[u64; ENTRIES_PER_LINE]>(ebpf, name)?;
        for line in 0..MAX_BUCKETS {
            let entries = lines.get(&line, 0)?;
            let used = entries.iter().enumerate().filter(|(_, entry)| **entry != 0);
            memory.reply_index.extend(used.map(|(number, entry)| (family, line, number, *entry)));
        }
    }
    memory.half_open = [half_open(ebpf, '4')?, half_open(ebpf, '6')?];
    let turns = read::<[u64; TURN]>(ebpf, "TURNS")?;
    memory.turns = (0..MAX_NUMBERS)
        .map(|pool| Ok(turns.get(&pool, 0).map(|turn| (turn[0], turn[1]))?))
        .collect::<Result<_>>()?;
    let backends = read::<Backend>(ebpf, "BACKENDS")?;
    memory.loads = (0..MAX_IDS)
        .map(|place| Ok(backends.get(&place, 0).map(|it| (it.load[0], it.load[1]))?))
        .collect::<Result<_>>()?;
    Ok(memory)
}

fn records(memory: &mut Memory, bucket: u32, bytes: &[u8]) {
    let indexes = bucket * WAYS as u32..;
    memory.flows.extend(
        indexes
            .zip(bytes.chunks(bytes.len() / WAYS))
            .filter_map(|(index, it)| record(RecordIndex(index), it)),
    );
}

/// Parses a record's bytes, in the order of `lb_common::flow::Record`.
fn record(index: RecordIndex, mut bytes: &[u8]) -> Option<Flow> {
    let is_v4 = bytes.len() == size_of::<Record4>();
    let bytes = &mut bytes;
    let control = Control(u64::from_ne_bytes(take(bytes)?));
    if control.state() == State::EMPTY {
        return None;
    }
    let address = |bytes: &mut &[u8]| -> Option<IpAddr> {
        Some(if is_v4 {
            Ipv4Addr::from(take::<4>(bytes)?).into()
        } else {
            Ipv6Addr::from(take::<16>(bytes)?).into()
        })
    };
    Some(Flow {
        index,
        control,
        client: address(bytes)?,
        listen: address(bytes)?,
        request_ports: Ports::from_raw(u32::from_ne_bytes(take(bytes)?)),
        owner: Owner(u32::from_ne_bytes(take(bytes)?)),
        reply_ports: Ports::from_raw(u32::from_ne_bytes(take(bytes)?)),
        last_seen: Ticks(u32::from_ne_bytes(take(bytes)?)),
        proof: Proof(u64::from_ne_bytes(take(bytes)?)),
        backend: address(bytes)?,
        source: address(bytes)?,
        client_hop: ClientHop(u64::from_ne_bytes(take(bytes)?)),
        deltas: Deltas { ip: u16::from_ne_bytes(take(bytes)?), l4: u16::from_ne_bytes(take(bytes)?) },
        hop_stamp: HopStamp(u32::from_ne_bytes(take(bytes)?)),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
