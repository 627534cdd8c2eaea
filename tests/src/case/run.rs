//! Running a row: messages get the addresses that the program chose, and what comes out is compared.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use lb_common::service::Mode;

use super::{Case, Drops, Expected, Input, Opens, Passes, Reaches, Returns, ReturnsVia, Step, check};
use crate::{
    dialogue::{Dialogue, IcmpError, Message, Speaker},
    engine::{Action, Counters, Engine, Memory, Outcome},
    packet::{Content, Packet, read},
    world::{World, network},
};

/// What an engine did in one step, for a comparison with the other engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub outcome: Outcome,
    pub counters: Counters,
    pub memory: Memory,
}

/// Runs a row. The error says which step went wrong, and how.
pub fn run(case: &Case, engine: &mut dyn Engine) -> Result<Vec<Observation>> {
    let mut run = Run { world: case.world.clone(), engine, seen: BTreeMap::new(), observations: Vec::new() };
    run.engine.reset(&run.world)?;
    for (number, step) in case.steps.iter().enumerate() {
        run.step(step).with_context(|| format!("{}: step {}", case.name, number + 1))?;
    }
    Ok(run.observations)
}

struct Run<'a> {
    world: World,
    engine: &'a mut dyn Engine,
    /// What a backend sees as the client.
    seen: BTreeMap<(Dialogue, &'static str), SocketAddr>,
    observations: Vec<Observation>,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Send(input, expected) => self.send(input, expected),
            Step::Flow(dialogue, states) => check::states(&self.engine.memory()?, dialogue, states),
            Step::Records(count) => {
                let flows = self.engine.memory()?.flows;
                ensure!(flows.len() == *count, "{} records are in use, not {count}: {flows:#?}", flows.len());
                Ok(())
            }
            Step::After(ticks) => {
                self.world.clock = self.world.clock.wrapping_add(*ticks);
                self.engine.load(&self.world)
            }
            Step::Change(change) => {
                change(&mut self.world);
                self.engine.load(&self.world)
            }
        }
    }

    fn send(&mut self, input: &Input, expected: &Expected) -> Result<()> {
        let (interface, frame) = self.address(input)?;
        let before = self.engine.counters()?;
        let outcome = self.engine.run(interface, &frame)?;
        let (counters, memory) = (self.engine.counters()?, self.engine.memory()?);
        self.observations.push(Observation {
            outcome: outcome.clone(),
            counters: counters.clone(),
            memory: memory.clone(),
        });
        let story = || {
            format!(
                "expected {expected:?}\n   in {}\n   {:?} {}",
                read::print(&frame),
                outcome.action,
                read::print(&outcome.frame)
            )
        };

        if let (Opens(backend), Input::Message(message)) = (expected, input) {
            self.learn(message.dialogue, backend, &outcome.frame).with_context(story)?;
        }
        let (action, wanted) = self.expect(input, expected, interface, &frame).with_context(story)?;
        ensure!(outcome.action == action, "the verdict should be {action:?}\n{}", story());
        ensure!(outcome.frame == wanted, "should be {}\n{}", read::print(&wanted), story());
        if matches!(action, Action::Transmit | Action::Redirect) {
            read::verify(&outcome.frame).map_err(anyhow::Error::msg).with_context(story)?;
        }
        let change = check::Change { input, expected, action, interface, bytes: frame.len() as u64 };
        check::counters(&self.world, &before, &counters, &change).with_context(story)?;
        check::memory(&memory).with_context(story)
    }

    /// The frame that an input is, and the interface that it comes by.
    fn address(&self, input: &Input) -> Result<(u32, Vec<u8>)> {
        match input {
            Input::Frame(interface, bytes) => Ok((*interface, bytes.clone())),
            Input::Message(message) => {
                let (interface, packet) = match message.speaker {
                    Speaker::Client => {
                        let Dialogue { client, listen, .. } = message.dialogue;
                        (network::interface_towards(client.ip()), between(&message.packet, client, listen))
                    }
                    Speaker::Backend(name) => {
                        let backend = self.world.find(name);
                        let seen = self.seen(message.dialogue, name)?;
                        (backend.interface, between(&message.packet, backend.address, seen))
                    }
                };
                Ok((interface, packet.with(|it| it.to_mac = network::mac_of_interface(interface)).to_frame()))
            }
            Input::Error(error) => {
                let quoted = self.forwarded(&error.about, error.backend)?;
                let interface = network::interface_towards(error.router);
                let quote = quoted.quoted(error.quoted_bytes);
                let to = quoted.source;
                let packet = error_packet(error, error.router, to, quote)
                    .with(|it| it.to_mac = network::mac_of_interface(interface));
                Ok((interface, packet.to_frame()))
            }
        }
    }

    fn seen(&self, dialogue: Dialogue, backend: &'static str) -> Result<SocketAddr> {
        let seen = self.seen.get(&(dialogue, backend));
        seen.copied().with_context(|| format!("{backend} has seen nothing of {dialogue:?}"))
    }

    /// Reads from the first request what the backend sees as the client, if it is what the mode allows.
    fn learn(&mut self, dialogue: Dialogue, backend: &'static str, frame: &[u8]) -> Result<()> {
        let (source, _) = read::endpoints(frame).context("no TCP or UDP packet came out")?;
        let service =
            self.world.service(dialogue.protocol, dialogue.listen).context("the row has no such service")?;
        match service.mode {
            Mode::FullNat => {
                let ports = self.world.ports;
                ensure!(service.sources.contains(&source.ip()), "{source} is no source address");
                let is_in_pool = (0..ports.size()).any(|index| ports.port(index) == source.port());
                ensure!(is_in_pool, "{source} is not of the port pool");
            }
            Mode::Nat => ensure!(source == dialogue.client, "nat keeps the client, this is {source}"),
        }
        self.seen.insert((dialogue, backend), source);
        Ok(())
    }

    /// What a message becomes when we forward it.
    fn forwarded(&self, message: &Message, backend: &'static str) -> Result<Packet> {
        let Dialogue { client, listen, .. } = message.dialogue;
        let packet = match message.speaker {
            Speaker::Client => {
                let it = self.world.find(backend);
                let packet = between(&message.packet, self.seen(message.dialogue, backend)?, it.address);
                packet.with(|packet| {
                    (packet.to_mac, packet.from_mac) = (it.mac, network::mac_of_interface(it.interface));
                })
            }
            Speaker::Backend(_) => {
                let packet = between(&message.packet, listen, client);
                match self.world.route(client.ip()) {
                    Ok(hop) => packet.with(|packet| {
                        (packet.to_mac, packet.from_mac) =
                            (hop.destination.to_bytes(), hop.source.to_bytes());
                    }),
                    Err(reason) => bail!("the row's client cannot be reached: {}", reason.name()),
                }
            }
        };
        Ok(packet.with(|packet| packet.hops -= 1))
    }

    /// The verdict and the bytes that should come out.
    fn expect(
        &self,
        input: &Input,
        expected: &Expected,
        ingress: u32,
        frame: &[u8],
    ) -> Result<(Action, Vec<u8>)> {
        let packet = match (expected, input) {
            (Passes(_), _) => return Ok((Action::Pass, frame.to_vec())),
            (Drops(_), _) => return Ok((Action::Drop, frame.to_vec())),
            (Opens(backend) | Reaches(backend), Input::Message(message)) => {
                self.forwarded(message, backend)?
            }
            (Returns, Input::Message(message)) => {
                let Speaker::Backend(backend) = message.speaker else { bail!("clients do not reply") };
                self.forwarded(message, backend)?
            }
            (ReturnsVia(mac), Input::Message(message)) => {
                let Speaker::Backend(backend) = message.speaker else { bail!("clients do not reply") };
                self.forwarded(message, backend)?.with(|packet| packet.to_mac = *mac)
            }
            (Reaches(_) | Returns, Input::Error(error)) => self.translated(error)?,
            (Opens(_) | ReturnsVia(_), Input::Error(_)) => bail!("errors open nothing"),
            (Opens(_) | Reaches(_) | Returns | ReturnsVia(_), Input::Frame(..)) => {
                bail!("the row must say what becomes of its frame")
            }
        };
        let egress = network::INTERFACES.map(|(_, index)| index);
        let egress = egress.into_iter().find(|index| network::mac_of_interface(*index) == packet.from_mac);
        let action = if egress == Some(ingress) { Action::Transmit } else { Action::Redirect };
        Ok((action, packet.to_frame()))
    }

    /// What an error becomes: it quotes what its reader sent, and comes from where its reader sent that to.
    fn translated(&self, error: &IcmpError) -> Result<Packet> {
        let Dialogue { client, listen, .. } = error.about.dialogue;
        let backend = self.world.find(error.backend);
        let seen = self.seen(error.about.dialogue, error.backend)?;
        let (reader, partner, to_mac, from_mac) = match error.about.speaker {
            Speaker::Client => {
                let hop = self.world.route(client.ip()).map_err(|reason| anyhow::anyhow!(reason.name()))?;
                (client, listen, hop.destination.to_bytes(), hop.source.to_bytes())
            }
            Speaker::Backend(_) => {
                (backend.address, seen, backend.mac, network::mac_of_interface(backend.interface))
            }
        };
        let quote = between(&error.about.packet, reader, partner).with(|packet| packet.hops -= 1);
        let hides = seen != client;
        let from = if hides { partner.ip() } else { error.router };
        Ok(error_packet(error, from, reader.ip(), quote.quoted(error.quoted_bytes)).with(|packet| {
            packet.hops -= 1;
            (packet.to_mac, packet.from_mac) = (to_mac, from_mac);
        }))
    }
}

fn between(packet: &Packet, from: SocketAddr, to: SocketAddr) -> Packet {
    packet.clone().with(|packet| packet.readdress(from, to))
}

fn error_packet(error: &IcmpError, from: std::net::IpAddr, to: std::net::IpAddr, quote: Vec<u8>) -> Packet {
    let icmp = crate::packet::Icmp { payload: quote, ..error.icmp.clone() };
    Packet::new(from, to, Content::Icmp(icmp)).with(|packet| packet.hops = error.hops)
}
