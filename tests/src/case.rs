//! A datapath test case (a row of the test table): a sentence, a world, and steps with their expected outcomes.
//!
//! Every step checks the verdict, all bytes that come out against a packet that is built from scratch, all checksums,
//! all counters, and that the tables are in order.

mod check;
mod known;
mod run;

use std::{net::IpAddr, rc::Rc};

use anyhow::Result;
use lb_common::{
    clock::Ticks,
    event::NeighbourWanted,
    flow::State,
    hop::{ClientHop, InterfaceIndex},
    net::{Mac, Protocol},
    reason::Reason,
};

pub use self::run::{Observation, run, run_at_every_access};
use crate::{
    dialogue::{Dialogue, IcmpError, Message},
    engine::Memory,
    packet::Packet,
    world::World,
};

/// A row of the test table: one test case.
#[must_use]
pub struct Case {
    /// A sentence that states a fact about the program. It names a failing row.
    pub name: String,
    world: World,
    steps: Vec<Step>,
}

enum Step {
    Send(Input, Expected),
    /// A CPU is preempted while it processes the input, and the rest happens meanwhile.
    Preempted(Input, Vec<Rc<Vec<Step>>>),
    /// The states of all records of a client's tuple: one of these lists.
    Flow(Dialogue, Vec<Vec<State>>),
    /// How many records are in use.
    Records(usize),
    /// The neighbour request to the daemon in the step before.
    Asked(Vec<NeighbourWanted>),
    /// What else must be true of the tables.
    Holds(Box<Check>),
    After(Ticks),
    Change(Box<dyn Fn(&mut World)>),
}

/// What a row says of the tables.
type Check = dyn Fn(&World, &Memory) -> Result<()>;

/// What is sent.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message; its addresses are set when it is sent.
    Message(Box<Message>),
    /// A router's ICMP error, which quotes the message as it was forwarded.
    Error(Box<IcmpError>),
    /// Any bytes, received on this interface.
    Frame(u32, Vec<u8>),
}

/// The expected outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A flow is created: the request goes to a backend. The reply tuple is read from it.
    Opens(&'static str),
    /// A request of a known flow goes to a backend.
    Reaches(&'static str),
    /// A reply goes to the client.
    Returns,
    /// A reply goes to the client at this Ethernet address.
    ReturnsVia([u8; 6]),
    /// Not for xlb: passed to the host unchanged.
    Passes(Reason),
    /// For xlb, but cannot be forwarded: dropped unchanged.
    Drops(Reason),
    /// For xlb, but cannot be forwarded: becomes a TCP reset to its sender.
    Resets(Reason),
    /// For xlb, but cannot be forwarded: becomes an ICMP port unreachable to its sender.
    Unreachable(Reason),
    /// Depends on timing. Not sent if it answers a packet that never arrived. If forwarded, it must go to an endpoint
    /// of its own flow.
    Depends,
}

pub use Expected::{Depends, Drops, Opens, Passes, Reaches, Resets, Returns, ReturnsVia, Unreachable};

/// The answer to a request that is refused for this reason.
pub const fn answered(protocol: Protocol, reason: Reason) -> Expected {
    match protocol {
        Protocol::Tcp => Resets(reason),
        Protocol::Udp => Unreachable(reason),
    }
}

impl From<Message> for Input {
    fn from(message: Message) -> Self {
        Self::Message(Box::new(message))
    }
}

impl From<IcmpError> for Input {
    fn from(error: IcmpError) -> Self {
        Self::Error(Box::new(error))
    }
}

impl From<(u32, Packet)> for Input {
    fn from((interface, packet): (u32, Packet)) -> Self {
        Self::Frame(interface, packet.to_frame())
    }
}

impl From<(u32, Vec<u8>)> for Input {
    fn from((interface, bytes): (u32, Vec<u8>)) -> Self {
        Self::Frame(interface, bytes)
    }
}

impl Case {
    /// A row without steps.
    pub fn new(name: impl Into<String>, world: World) -> Self {
        Self { name: name.into(), world, steps: Vec::new() }
    }

    /// The reasons that the row expects.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.steps.iter().filter_map(|step| match step {
            Step::Send(_, Passes(reason) | Drops(reason) | Resets(reason) | Unreachable(reason)) => {
                Some(*reason)
            }
            Step::Send(_, Opens(_) | Reaches(_) | Returns | ReturnsVia(_) | Depends)
            | Step::Preempted(..)
            | Step::Flow(..)
            | Step::Records(_)
            | Step::Asked(_)
            | Step::Holds(_)
            | Step::After(_)
            | Step::Change(_) => None,
        })
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Sends something and checks the outcome.
    pub fn step(self, input: impl Into<Input>, expected: Expected) -> Self {
        self.then(Step::Send(input.into(), expected))
    }

    /// Sends something to a CPU that is preempted while it processes it, and runs `meanwhile` on another CPU. The outcome
    /// depends on the access where it is preempted; [`run_at_every_access`] tries them all.
    pub fn preempted(self, input: impl Into<Input>, meanwhile: impl FnOnce(Self) -> Self) -> Self {
        let elsewhere = meanwhile(Self::new("", self.world.clone()));
        self.then(Step::Preempted(input.into(), vec![Rc::new(elsewhere.steps)]))
    }

    /// The CPU of the last step is preempted again, while more happens elsewhere.
    ///
    /// # Panics
    /// If it was not preempted in that step: the row is wrong.
    pub fn and_again(mut self, meanwhile: impl FnOnce(Self) -> Self) -> Self {
        let elsewhere = meanwhile(Self::new("", self.world.clone()));
        match self.steps.last_mut() {
            Some(Step::Preempted(_, pauses)) => pauses.push(Rc::new(elsewhere.steps)),
            Some(
                Step::Send(..)
                | Step::Flow(..)
                | Step::Records(_)
                | Step::Asked(_)
                | Step::Holds(_)
                | Step::After(_)
                | Step::Change(_),
            )
            | None => {
                panic!("no CPU is preempted in the last step of `{}`", self.name)
            }
        }
        self
    }

    /// All records of the client's tuple have these states. An empty list: there is no such flow.
    pub fn flow(self, dialogue: Dialogue, states: &[State]) -> Self {
        self.flow_depends(dialogue, &[states])
    }

    /// The states of the client's records are one of these lists, depending on timing.
    pub fn flow_depends(self, dialogue: Dialogue, lists: &[&[State]]) -> Self {
        self.then(Step::Flow(dialogue, lists.iter().map(|states| states.to_vec()).collect()))
    }

    /// This many records are in use.
    pub fn records(self, count: usize) -> Self {
        self.then(Step::Records(count))
    }

    /// The last input requested a neighbour on an interface from the daemon. Its flow uses this MAC meanwhile.
    pub fn asks(self, address: IpAddr, interface: u32, mac: [u8; 6]) -> Self {
        let hop = ClientHop::new(Mac::new(mac), InterfaceIndex(interface), 0);
        self.then(Step::Asked(vec![NeighbourWanted { address: address.into(), hop }]))
    }

    /// The last input requested no neighbour from the daemon.
    pub fn asks_nothing(self) -> Self {
        self.then(Step::Asked(Vec::new()))
    }

    /// The tables are as this says.
    pub fn holds(self, check: impl Fn(&World, &Memory) -> Result<()> + 'static) -> Self {
        self.then(Step::Holds(Box::new(check)))
    }

    /// Time passes.
    pub fn after_s(self, seconds: u64) -> Self {
        self.then(Step::After(Ticks::from_seconds(seconds)))
    }

    /// Changes what the controller or the network provides.
    pub fn change(self, change: impl Fn(&mut World) + 'static) -> Self {
        self.then(Step::Change(Box::new(change)))
    }

    /// Opens a flow and proves it.
    pub fn establish(self, dialogue: Dialogue, backend: &'static str) -> Self {
        let proof = match dialogue.protocol {
            Protocol::Tcp => dialogue.ack(1),
            Protocol::Udp => dialogue.later(),
        };
        self.step(dialogue.first(), Opens(backend))
            .step(dialogue.answer(backend), Returns)
            .step(proof, Reaches(backend))
            .flow(dialogue, &[State::ESTABLISHED])
    }
}
