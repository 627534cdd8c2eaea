//! A datapath case is a row: a sentence, a world, and steps, each with what is expected of it.
//!
//! Every step checks the verdict, all bytes that come out against a packet that is built from scratch, all checksums,
//! all counters, and that the tables are in order.

mod check;
mod known;
mod run;

use std::{net::IpAddr, rc::Rc};

use lb_common::{
    clock::ticks,
    event::NeighbourWanted,
    flow::State,
    hop::ClientHop,
    net::{Mac, Protocol},
    reason::Reason,
};

pub use self::run::{Observation, run, run_at_every_access};
use crate::{
    dialogue::{Dialogue, IcmpError, Message},
    packet::Packet,
    world::World,
};

/// A row.
#[must_use]
pub struct Case {
    /// A sentence that is a fact about the program; a failing row is named by it.
    pub name: String,
    world: World,
    steps: Vec<Step>,
}

enum Step {
    Send(Input, Expected),
    /// Sent to a CPU that stands still on its way, while the rest happens.
    StandStill(Input, Vec<Rc<Vec<Step>>>),
    /// The states of all records of a client's tuple, if it does not depend on the moment.
    Flow(Dialogue, Vec<Vec<State>>),
    /// Records of all flows.
    Records(usize),
    /// What the daemon was asked in the step before.
    Asked(Vec<NeighbourWanted>),
    After(u32),
    Change(Box<dyn Fn(&mut World)>),
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum Input {
    /// By its speaker, who puts the addresses on it.
    Message(Box<Message>),
    /// By its router, who quotes the message as it was forwarded.
    Error(Box<IcmpError>),
    /// Any bytes, by an interface.
    Frame(u32, Vec<u8>),
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A flow is made: the request goes to a backend, from an address and port that are learnt here.
    Opens(&'static str),
    /// A request of a known flow goes to a backend.
    Reaches(&'static str),
    /// A reply goes to the client.
    Returns,
    /// A reply goes to the client by this Ethernet address.
    ReturnsVia([u8; 6]),
    /// Not ours: the host gets it as it is.
    Passes(Reason),
    /// Ours, but it cannot be served: dropped as it is.
    Drops(Reason),
    /// It depends on the moment: if it is sent (nobody answers what he has not seen) and forwarded, then to whom it may
    /// concern.
    Depends,
}

pub use Expected::{Depends, Drops, Opens, Passes, Reaches, Returns, ReturnsVia};

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

    /// Why packets of the row are not forwarded.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.steps.iter().filter_map(|step| match step {
            Step::Send(_, Passes(reason) | Drops(reason)) => Some(*reason),
            Step::Send(_, Opens(_) | Reaches(_) | Returns | ReturnsVia(_) | Depends)
            | Step::StandStill(..)
            | Step::Flow(..)
            | Step::Records(_)
            | Step::Asked(_)
            | Step::After(_)
            | Step::Change(_) => None,
        })
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Sends something, and says what becomes of it.
    pub fn step(self, input: impl Into<Input>, expected: Expected) -> Self {
        self.then(Step::Send(input.into(), expected))
    }

    /// Sends something to a CPU that stands still on its way, while other things happen elsewhere. What becomes of it
    /// depends on the moment; [`run_at_every_access`] tries them all.
    pub fn stands_still(self, input: impl Into<Input>, meanwhile: impl FnOnce(Self) -> Self) -> Self {
        let elsewhere = meanwhile(Self::new("", self.world.clone()));
        self.then(Step::StandStill(input.into(), vec![Rc::new(elsewhere.steps)]))
    }

    /// The CPU of the last step stands still again, while more happens elsewhere.
    ///
    /// # Panics
    /// If it did not stand still in that step: the row is wrong.
    pub fn and_again(mut self, meanwhile: impl FnOnce(Self) -> Self) -> Self {
        let elsewhere = meanwhile(Self::new("", self.world.clone()));
        match self.steps.last_mut() {
            Some(Step::StandStill(_, pauses)) => pauses.push(Rc::new(elsewhere.steps)),
            Some(
                Step::Send(..)
                | Step::Flow(..)
                | Step::Records(_)
                | Step::Asked(_)
                | Step::After(_)
                | Step::Change(_),
            )
            | None => {
                panic!("nobody stands still in the last step of `{}`", self.name)
            }
        }
        self
    }

    /// All records of the client's tuple are in these states. None: there is no such flow.
    pub fn flow(self, dialogue: Dialogue, states: &[State]) -> Self {
        self.flow_depends(dialogue, &[states])
    }

    /// All records of the client's tuple are in one of these lists of states: it depends on the moment.
    pub fn flow_depends(self, dialogue: Dialogue, lists: &[&[State]]) -> Self {
        self.then(Step::Flow(dialogue, lists.iter().map(|states| states.to_vec()).collect()))
    }

    /// So many records are in use.
    pub fn records(self, count: usize) -> Self {
        self.then(Step::Records(count))
    }

    /// For what was sent last, the daemon was asked to resolve a neighbour on an interface, whose flow uses this MAC
    /// meanwhile.
    pub fn asks(self, address: IpAddr, interface: u32, mac: [u8; 6]) -> Self {
        let hop = ClientHop::new(Mac::new(mac), interface, 0);
        self.then(Step::Asked(vec![NeighbourWanted { address: address.into(), hop }]))
    }

    /// For what was sent last, the daemon was asked nothing.
    pub fn asks_nothing(self) -> Self {
        self.then(Step::Asked(Vec::new()))
    }

    /// Time passes.
    pub fn after_s(self, seconds: u64) -> Self {
        self.then(Step::After(ticks(seconds)))
    }

    /// The controller, or the network, does something.
    pub fn change(self, change: impl Fn(&mut World) + 'static) -> Self {
        self.then(Step::Change(Box::new(change)))
    }

    /// A flow is made and proven.
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
