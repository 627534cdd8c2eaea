//! What is known while a row runs: the world, and the addresses that the program chose. It gives the frames to send
//! and the frames to expect.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_common::{net::Protocol, service::Mode};
use lb_ebpf::{
    packet::tcp::{ACK, FIN, RST, SYN},
    storage::Route,
};

use super::{
    Depends, Drops, Expected, Input, Opens, Passes, Reaches, Resets, Returns, ReturnsVia, Unreachable,
};
use crate::{
    dialogue::{Dialogue, IcmpError, Message, Sender},
    engine::Action,
    packet::{Content, Icmp, Packet, RECEIVER, SENDER, Tcp, read},
    world::{World, network},
};

/// The world, and the reply tuples so far.
#[derive(Clone)]
pub struct Known {
    /// The world after the steps so far.
    pub world: World,
    /// What each backend sees as the client.
    seen: BTreeMap<(Dialogue, &'static str), SocketAddr>,
}

impl Known {
    /// Before the first step: nothing is chosen.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), seen: BTreeMap::new() }
    }

    /// Has the sender received what this message answers?
    pub fn can_send(&self, input: &Input) -> bool {
        let Input::Message(message) = input else { return true };
        match message.sender {
            Sender::Client => true,
            Sender::Backend(name) => self.seen.contains_key(&(message.dialogue, name)),
        }
    }

    /// The frame of an input, and the interface that receives it.
    pub fn address(&self, input: &Input) -> Result<(u32, Vec<u8>)> {
        let (interface, mut frame) = self.frame(input)?;
        if let Some(to) = frame.first_chunk_mut()
            && *to == RECEIVER
        {
            *to = self.world.own_mac(interface);
        }
        Ok((interface, frame))
    }

    fn frame(&self, input: &Input) -> Result<(u32, Vec<u8>)> {
        match input {
            Input::Frame(interface, bytes) => Ok((*interface, bytes.clone())),
            Input::Message(message) => {
                let (interface, packet) = match message.sender {
                    Sender::Client => {
                        let Dialogue { client, listen, .. } = message.dialogue;
                        (network::interface_towards(client.ip()), between(&message.packet, client, listen))
                    }
                    Sender::Backend(name) => {
                        let backend = self.world.find(name);
                        let seen = self.seen(message.dialogue, name)?;
                        (backend.interface, between(&message.packet, backend.address, seen))
                    }
                };
                Ok((message.ingress.unwrap_or(interface), packet.to_frame()))
            }
            Input::Error(error) => {
                let quoted = self.forwarded(&error.about, error.backend)?;
                let interface = network::interface_towards(error.router);
                let quote = quoted.quoted(error.quoted_bytes);
                let to = quoted.source;
                Ok((interface, error_packet(error, error.router, to, quote).to_frame()))
            }
        }
    }

    fn seen(&self, dialogue: Dialogue, backend: &'static str) -> Result<SocketAddr> {
        let seen = self.seen.get(&(dialogue, backend)).copied();
        let service = self.world.service(dialogue.protocol, dialogue.listen);
        let is_client = service.is_some_and(|service| service.mode == Mode::Nat);
        seen.or(is_client.then_some(dialogue.client))
            .with_context(|| format!("{backend} has received nothing of {dialogue:?}"))
    }

    /// Reads from the first request what the backend sees as the client, if it is what the mode allows.
    pub fn learn(&mut self, dialogue: Dialogue, backend: &'static str, frame: &[u8]) -> Result<()> {
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

    /// The message as xlb forwards it.
    fn forwarded(&self, message: &Message, backend: &'static str) -> Result<Packet> {
        let Dialogue { client, listen, .. } = message.dialogue;
        let packet = match message.sender {
            Sender::Client => {
                let it = self.world.find(backend);
                let packet = between(&message.packet, self.seen(message.dialogue, backend)?, it.address);
                packet.with(|packet| {
                    (packet.to_mac, packet.from_mac) = (it.mac, self.world.own_mac(it.interface));
                })
            }
            Sender::Backend(_) => {
                let (to_mac, from_mac) = self.towards(client.ip())?;
                between(&message.packet, listen, client)
                    .with(|packet| (packet.to_mac, packet.from_mac) = (to_mac, from_mac))
            }
        };
        Ok(packet.with(|packet| packet.hops -= 1))
    }

    /// The Ethernet addresses of a frame to a client. Without a neighbour entry, it is the MAC of the client's own frames.
    fn towards(&self, client: IpAddr) -> Result<([u8; 6], [u8; 6])> {
        match self.world.route(client) {
            Ok(Route::Resolved(hop)) => Ok((hop.destination.to_bytes(), hop.source.to_bytes())),
            Ok(Route::Unresolved { hop, .. }) => Ok((SENDER, hop.source.to_bytes())),
            Err(_) => bail!("the row's client cannot be reached"),
        }
    }

    /// Checks the verdict and the bytes that come out.
    pub fn expect(
        &self,
        input: &Input,
        expected: &Expected,
        ingress: u32,
        frame: &[u8],
    ) -> Result<(Action, Vec<u8>)> {
        let packet = match (expected, input) {
            (Passes(_), _) => return Ok((Action::Pass, frame.to_vec())),
            (Drops(_), _) => return Ok((Action::Drop, frame.to_vec())),
            (Resets(_), Input::Message(message)) => {
                return Ok((Action::Transmit, self.reset(message, ingress)?.to_frame()));
            }
            (Unreachable(_), Input::Message(message)) => {
                return Ok((Action::Transmit, self.unreachable(message, ingress)?.to_frame()));
            }
            (Opens(backend) | Reaches(backend), Input::Message(message)) => {
                self.forwarded(message, backend)?
            }
            (Returns, Input::Message(message)) => {
                let Sender::Backend(backend) = message.sender else { bail!("clients do not reply") };
                self.forwarded(message, backend)?
            }
            (ReturnsVia(mac), Input::Message(message)) => {
                let Sender::Backend(backend) = message.sender else { bail!("clients do not reply") };
                self.forwarded(message, backend)?.with(|packet| packet.to_mac = *mac)
            }
            (Reaches(_) | Returns, Input::Error(error)) => self.translated(error)?,
            (Opens(_) | ReturnsVia(_), Input::Error(_)) => bail!("an ICMP error opens no flow"),
            (Resets(_) | Unreachable(_), Input::Error(_)) => bail!("an ICMP error is never answered"),
            (Depends, _) => bail!("an outcome that depends on timing has no single frame"),
            (
                Opens(_) | Reaches(_) | Returns | ReturnsVia(_) | Resets(_) | Unreachable(_),
                Input::Frame(..),
            ) => {
                bail!("the row must give the outcome of a raw frame")
            }
        };
        Ok((self.leaves(&packet, ingress), packet.to_frame()))
    }

    /// All frames that a message may become, if several flows may have its tuple.
    pub fn may_become(&self, message: &Message, ingress: u32) -> Vec<(Action, Vec<u8>)> {
        let heirs: Vec<(Dialogue, &'static str)> = match message.sender {
            Sender::Client => self.seen.keys().copied().filter(|(it, _)| *it == message.dialogue).collect(),
            Sender::Backend(name) => {
                let from = self.seen.get(&(message.dialogue, name));
                let heirs = self.seen.iter().filter(|((_, it), seen)| *it == name && Some(*seen) == from);
                heirs.map(|(key, _)| *key).collect()
            }
        };
        let become_theirs = |(dialogue, backend)| {
            self.forwarded(&Message { dialogue, ..message.clone() }, backend)
                .map(|packet| (self.leaves(&packet, ingress), packet.to_frame()))
        };
        heirs.into_iter().filter_map(|heir| become_theirs(heir).ok()).collect()
    }

    /// A translated error: it quotes what its receiver sent, and comes from the address that the receiver sent it to.
    fn translated(&self, error: &IcmpError) -> Result<Packet> {
        let Dialogue { client, listen, .. } = error.about.dialogue;
        let backend = self.world.find(error.backend);
        let seen = self.seen(error.about.dialogue, error.backend)?;
        let (reader, partner, to_mac, from_mac) = match error.about.sender {
            Sender::Client => {
                let (to_mac, from_mac) = self.towards(client.ip())?;
                (client, listen, to_mac, from_mac)
            }
            Sender::Backend(_) => (backend.address, seen, backend.mac, self.world.own_mac(backend.interface)),
        };
        let quote = between(&error.about.packet, reader, partner).with(|packet| packet.hops -= 1);
        let hides = seen != client;
        let from = if hides { partner.ip() } else { error.router };
        Ok(error_packet(error, from, reader.ip(), quote.quoted(error.quoted_bytes)).with(|packet| {
            packet.hops -= 1;
            (packet.to_mac, packet.from_mac) = (to_mac, from_mac);
        }))
    }

    /// The sender of a message, and the endpoint that it sends to.
    fn ends(&self, message: &Message) -> Result<(SocketAddr, SocketAddr)> {
        match message.sender {
            Sender::Client => Ok((message.dialogue.client, message.dialogue.listen)),
            Sender::Backend(name) => Ok((self.world.find(name).address, self.seen(message.dialogue, name)?)),
        }
    }

    /// The reset that answers a segment (RFC 9293, 3.10.7.1).
    fn reset(&self, message: &Message, ingress: u32) -> Result<Packet> {
        let (sender, receiver) = self.ends(message)?;
        let Tcp { sequence, acknowledgement, flags, payload, .. } = message.packet.clone().tcp_mut().clone();
        let length = payload.len() as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let answer = |flags, sequence, acknowledgement| {
            Packet::tcp(receiver, sender, flags).with(|packet| {
                let tcp = packet.tcp_mut();
                (tcp.sequence, tcp.acknowledgement, tcp.window) = (sequence, acknowledgement, 0);
            })
        };
        let reset = match flags & ACK {
            0 => answer(RST | ACK, 0, sequence.wrapping_add(length)),
            _ => answer(RST, acknowledgement, 0),
        };
        Ok(self.back(reset, message, ingress))
    }

    /// The error that answers a datagram: it quotes the IP header and eight bytes.
    fn unreachable(&self, message: &Message, ingress: u32) -> Result<Packet> {
        let (sender, receiver) = self.ends(message)?;
        let (kind, code, header) = if sender.is_ipv4() { (3, 3, 20) } else { (1, 4, 40) };
        let header = header + message.packet.options.len();
        let payload = between(&message.packet, sender, receiver).quoted(header + 8);
        let icmp = Icmp { kind, code, rest: [0; 4], payload };
        Ok(self.back(Packet::new(receiver.ip(), sender.ip(), Content::Icmp(icmp)), message, ingress))
    }

    /// An answer leaves by the interface where the message arrived, to the station that sent it.
    fn back(&self, answer: Packet, message: &Message, ingress: u32) -> Packet {
        answer.with(|packet| {
            (packet.to_mac, packet.from_mac) = (message.packet.from_mac, self.world.own_mac(ingress));
            packet.label = 0;
        })
    }

    /// Is this the answer to a message?
    pub fn is_answer(&self, message: &Message, ingress: u32, frame: &[u8]) -> bool {
        let answer = match message.dialogue.protocol {
            Protocol::Tcp => self.reset(message, ingress),
            Protocol::Udp => self.unreachable(message, ingress),
        };
        answer.is_ok_and(|answer| answer.to_frame() == frame)
    }

    fn leaves(&self, packet: &Packet, ingress: u32) -> Action {
        if packet.from_mac == self.world.own_mac(ingress) { Action::Transmit } else { Action::Redirect }
    }
}

fn between(packet: &Packet, from: SocketAddr, to: SocketAddr) -> Packet {
    packet.clone().with(|packet| packet.readdress(from, to))
}

fn error_packet(error: &IcmpError, from: IpAddr, to: IpAddr, quote: Vec<u8>) -> Packet {
    let icmp = Icmp { payload: quote, ..error.icmp.clone() };
    Packet::new(from, to, Content::Icmp(icmp)).with(|packet| packet.hops = error.hops)
}
