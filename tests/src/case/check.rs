//! What must be true after every packet: each is counted once and in the right place, and the tables are in order.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use lb_common::{
    counters::Tally,
    ejection::Ejection,
    flow::{FlowId, ReplyEntry, State},
    limits::MAX_PLACES,
    net::Be16,
    reason::Reason,
};

use lb_ebpf::packet::tcp::{ACK, RST, SYN};

use super::{
    Depends, Drops, Expected, Input, Opens, Passes, Reaches, Resets, Returns, ReturnsVia, Unreachable,
};
use crate::{
    dialogue::{Dialogue, Sender},
    engine::{Action, Counters, Flow, MAX_IDS, Memory},
    world::{Backend, World, network::INTERFACES},
};

/// One packet and its outcome.
pub struct Change<'a> {
    /// What was sent.
    pub input: &'a Input,
    /// The outcome that the row expects.
    pub expected: &'a Expected,
    /// The actual outcome.
    pub action: Action,
    /// The index of the interface that received it.
    pub interface: u32,
    /// The length of the frame as it was received, which is what is counted.
    pub bytes: u64,
}

/// Exactly the counters of this packet have moved, by one packet.
pub fn counters(world: &World, before: &Counters, after: &Counters, change: &Change<'_>) -> Result<()> {
    let mut wanted = before.clone();
    let place = INTERFACES.iter().position(|(_, index)| *index == change.interface);
    let actions = place.and_then(|place| wanted.actions.get_mut(place));
    ensure!(actions.is_some(), "there is no interface {}", change.interface);
    if let Some(actions) = actions {
        match change.action {
            Action::Pass => actions.passed += 1,
            Action::Drop => actions.dropped += 1,
            Action::Transmit if matches!(change.expected, Resets(_) | Unreachable(_)) => {
                actions.rejected += 1;
            }
            Action::Transmit => actions.transmitted += 1,
            Action::Redirect => actions.redirected += 1,
        }
    }
    match change.expected {
        Opens(name) => {
            let backend = &mut wanted.backends[counters_of(world, name)];
            add(&mut backend.forwarded, change.bytes);
            backend.new_flows += 1;
        }
        Reaches(name) => add(&mut wanted.backends[counters_of(world, name)].forwarded, change.bytes),
        Returns | ReturnsVia(_) => {
            let name = match change.input {
                Input::Message(message) => match message.sender {
                    Sender::Backend(name) => name,
                    Sender::Client => "",
                },
                Input::Error(error) => error.backend,
                Input::Frame(..) => "",
            };
            add(&mut wanted.backends[counters_of(world, name)].returned, change.bytes);
        }
        // Not looked up.
        Depends => {}
        Passes(reason) | Drops(reason) | Resets(reason) | Unreachable(reason) => {
            add(&mut wanted.reasons[*reason as usize], change.bytes);
            if let Some(service) = refusing_service(world, change.input, *reason) {
                add(&mut wanted.services[service].refused, change.bytes);
            }
        }
    }
    failures(&mut wanted, after, change);
    // Refused before the service is known, or after.
    if matches!(change.expected, Drops(Reason::Internal)) {
        wanted.services.clone_from(&after.services);
    }
    ensure!(*after == wanted, "the counters should be\n{wanted:?}\nand are\n{after:?}");
    Ok(())
}

/// Takes over the counts of failures and retries, which depend on what went before, if a packet of this kind can change
/// them by one.
fn failures(wanted: &mut Counters, after: &Counters, change: &Change<'_>) {
    let Input::Message(message) = change.input else { return };
    let flags = message.packet.tcp_flags();
    let (is_reset, is_syn) = (flags & RST != 0, flags & (SYN | ACK | RST) == SYN);
    let take = |count: &mut u64, after: u64, may_change: bool| {
        if may_change && after == *count + 1 {
            *count = after;
        }
    };
    let is_of_client = message.sender == Sender::Client;
    for (wanted, after) in wanted.backends.iter_mut().zip(&after.backends) {
        take(&mut wanted.refused, after.refused, is_reset && !is_of_client);
        take(&mut wanted.unanswered, after.unanswered, is_syn && is_of_client);
    }
    for (wanted, after) in wanted.services.iter_mut().zip(&after.services) {
        take(&mut wanted.retried_flows, after.retried_flows, matches!(change.expected, Opens(_)));
    }
}

fn add(tally: &mut Tally, bytes: u64) {
    tally.packets += 1;
    tally.bytes += bytes;
}

fn counters_of(world: &World, name: &str) -> usize {
    let mut backends = world.services.iter().flat_map(|service| &service.backends);
    backends.position(|backend| backend.name == name).unwrap_or(usize::MAX)
}

/// The service that a dropped packet is counted for. `None` for broken headers, which have no ports, and for packets
/// from backends, unless their flow has been ended.
fn refusing_service(world: &World, input: &Input, reason: Reason) -> Option<usize> {
    let Input::Message(message) = input else { return None };
    let is_known = match reason {
        Reason::NotIp
        | Reason::NotService
        | Reason::Truncated
        | Reason::Malformed
        | Reason::Fragment
        | Reason::ExtensionHeader
        | Reason::RedirectFailed
        | Reason::MtuTooSmall
        | Reason::Internal
        | Reason::Retried
        | Reason::NotOurMac
        | Reason::UnknownReply => false,
        Reason::NoFlow => true,
        Reason::TtlExpired
        | Reason::TooBig
        | Reason::NoBackend
        | Reason::TableFull
        | Reason::PortsExhausted
        | Reason::TupleInUse
        | Reason::Contended
        | Reason::NoClientNeighbour
        | Reason::NoClientRoute
        | Reason::NoBackendNeighbour
        | Reason::BackendsFull => message.sender == Sender::Client,
    };
    service_of(world, &message.dialogue).filter(|_| is_known)
}

fn service_of(world: &World, dialogue: &Dialogue) -> Option<usize> {
    let Dialogue { protocol, listen, .. } = dialogue;
    world.services.iter().position(|it| it.protocol == *protocol && it.listen.contains(listen))
}

/// The records of a tuple. A flow that was replaced or ended only keeps its reply tuple.
fn of<'a>(memory: &'a Memory, dialogue: &Dialogue) -> impl Iterator<Item = &'a Flow> {
    memory.flows.iter().filter(move |flow| {
        ![State::RETIRED, State::ENDED].contains(&flow.control.state())
            && flow.client == dialogue.client.ip()
            && flow.listen == dialogue.listen.ip()
            && flow.request_ports.source() == Be16::new(dialogue.client.port())
            && flow.request_ports.destination() == Be16::new(dialogue.listen.port())
            && flow.owner.protocol() == dialogue.protocol.number()
    })
}

/// A tuple has a record that names the backend and the mode of its service.
pub fn opened(world: &World, memory: &Memory, dialogue: &Dialogue, backend: &str) -> Result<()> {
    let mode = service_of(world, dialogue).map(|service| world.services[service].mode);
    let id = world.find(backend).id;
    let owners: Vec<_> = of(memory, dialogue).map(|flow| (flow.owner.backend(), flow.owner.mode())).collect();
    ensure!(owners.contains(&(id, mode)), "no record is of {:?}, but of {owners:?}", (id, mode));
    Ok(())
}

/// The states of a tuple's records must be one of the lists.
pub fn states(memory: &Memory, dialogue: &Dialogue, lists: &[Vec<State>]) -> Result<()> {
    let sorted = |states: &mut dyn Iterator<Item = State>| {
        let mut states: Vec<u8> = states.map(|state| state.0).collect();
        states.sort_unstable();
        states
    };
    let found = sorted(&mut of(memory, dialogue).map(|flow| flow.control.state()));
    let wanted: Vec<_> = lists.iter().map(|states| sorted(&mut states.iter().copied())).collect();
    ensure!(wanted.contains(&found), "the flow is in states {found:#x?}, not in one of {wanted:#x?}");
    Ok(())
}

/// No flow was lost.
pub fn are_there(memory: &Memory, flows: &[Flow]) -> Result<()> {
    for flow in flows {
        let is_same = |it: &&Flow| it.index == flow.index && it.control.is_still(flow.control);
        let now = memory.flows.iter().find(is_same);
        ensure!(
            now.is_some_and(|it| it.control.state().is_established()),
            "an established flow is lost: {flow:?}"
        );
    }
    Ok(())
}

/// No record is busy, the counts of half-open flows, of each backend's flows and of ejected backends are right, and each
/// flow's tuples are its own and lead to it.
pub fn memory(world: &World, memory: &Memory) -> Result<()> {
    loads(world, memory)?;
    ejections(world, memory)?;
    flows(memory)
}

/// The daemon learns of each flow that became shared, or is shared no more, unless its record was taken, or it expired or was ended
/// by the controller.
pub fn reports(before: &Memory, after: &Memory, reported: &[FlowId]) -> Result<()> {
    let id = |flow: &Flow| FlowId::new(flow.client.is_ipv6(), flow.index, flow.control.generation());
    let were_shared: BTreeMap<_, _> =
        before.flows.iter().map(|flow| (id(flow), flow.control.state().is_shared())).collect();
    let changed = after.flows.iter().filter_map(|flow| {
        let state = flow.control.state();
        let was_shared = were_shared.get(&id(flow)).copied().unwrap_or(false);
        (was_shared != state.is_shared()).then_some((id(flow), state))
    });
    let changed: BTreeMap<_, _> = changed.collect();
    let told: BTreeSet<_> = reported.iter().copied().collect();
    ensure!(told.len() == reported.len(), "reported twice: {reported:x?}");
    ensure!(
        told.iter().all(|id| changed.contains_key(id)),
        "{told:x?} is reported, {changed:x?} has changed"
    );
    let is_untold = |state| [State::RETIRED, State::ENDED].contains(&state);
    let missing = changed.iter().find(|(id, state)| !is_untold(**state) && !told.contains(id));
    ensure!(missing.is_none(), "{missing:x?} is not reported");
    Ok(())
}

fn loads(world: &World, memory: &Memory) -> Result<()> {
    let backends = || world.services.iter().flat_map(|service| &service.backends);
    for backend in backends() {
        let place = backend.id.place(MAX_PLACES);
        if backends().any(|it| it.id != backend.id && it.id.place(MAX_PLACES) == place) {
            continue; // One of the two has no element.
        }
        let is_its = |flow: &&Flow| flow.owner.backend() == backend.id && flow.control.state().is_counted();
        let flows = memory.flows.iter().filter(is_its).count() as u64;
        let (load, _) = memory.loads[backend.id.place(MAX_IDS) as usize];
        ensure!(load == flows, "{} has {flows} flows, counted {load}", backend.name);
    }
    Ok(())
}

/// The number of ejected backends of each pool is right.
fn ejections(world: &World, memory: &Memory) -> Result<()> {
    for (service, (_, counted)) in world.services.iter().zip(&memory.turns) {
        let is_ejected = |backend: &&Backend| {
            let (_, ejection) = memory.loads[backend.id.place(MAX_IDS) as usize];
            Ejection(ejection).is_ejected()
        };
        let ejected = service.backends.iter().filter(is_ejected).count() as u64;
        ensure!(*counted == ejected, "{ejected} backends are ejected, counted {counted}");
        ensure!(ejected <= service.backends.len() as u64 / 2, "{ejected} backends are ejected");
    }
    Ok(())
}

fn flows(memory: &Memory) -> Result<()> {
    let mut half_open = [0; 2];
    let (mut requests, mut replies) = (BTreeSet::new(), BTreeSet::new());
    for flow in &memory.flows {
        let family = usize::from(flow.client.is_ipv6());
        let state = flow.control.state();
        ensure!(state != State::BUSY, "a record was left busy: {flow:?}");
        if state.is_half_open() {
            half_open[family] += 1;
        }
        // A reopening flow has the tuple of the closing one.
        let of_client = (flow.client, flow.listen, flow.request_ports.raw(), flow.owner.protocol());
        let is_its_own = !state.is_live() || requests.insert((of_client, state.is_reopening()));
        ensure!(is_its_own, "two flows have one request tuple: {:#?}", memory.flows);
        let reply = (flow.backend, flow.source, flow.reply_ports.raw(), flow.owner.protocol());
        ensure!(replies.insert(reply), "two flows have one reply tuple: {:#?}", memory.flows);
        let leads_here = |entry: ReplyEntry| {
            entry.record() == flow.index && entry.generation() == flow.control.generation() as u8
        };
        let of_family = memory.reply_index.iter().filter(|(of, ..)| *of == family);
        let entries = of_family.filter(|(.., entry)| leads_here(ReplyEntry(*entry))).count();
        ensure!(entries == 1, "{entries} entries of the reply index lead to {flow:?}");
    }
    ensure!(memory.half_open == half_open, "{half_open:?} are half-open, counted {:?}", memory.half_open);
    Ok(())
}
