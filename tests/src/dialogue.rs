//! Who talks to whom, and what they say: messages are written without addresses of ours, which a row cannot know
//! before its first packet came out.

use std::net::{IpAddr, SocketAddr};

use lb_common::net::{Be16, Ports, Protocol};
use lb_ebpf::{
    packet::tcp::{ACK, FIN, RST, SYN},
    table::hash,
};

use crate::{
    packet::{Icmp, Packet},
    world::{KEYS, Kind},
};

/// The sequence number of every SYN-ACK: what is counted from it wraps.
pub const BACKEND_ISN: u32 = u32::MAX - 10;
/// The sequence number of every SYN.
pub const CLIENT_ISN: u32 = 1000;

/// A client's endpoint, and the service's that it dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dialogue {
    /// Both protocols may have a dialogue between the same endpoints.
    pub protocol: Protocol,
    /// Where requests come from.
    pub client: SocketAddr,
    /// Where requests go to.
    pub listen: SocketAddr,
}

/// Whose turn it is to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Who dials.
    Client,
    /// By its name.
    Backend(&'static str),
}

/// A packet of a dialogue, as its speaker sends it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Message {
    /// Whose connection it belongs to.
    pub dialogue: Dialogue,
    /// Who sends it, and so which way it goes.
    pub speaker: Speaker,
    /// Its addresses and ports are put on when it is sent.
    pub packet: Packet,
    /// Where it arrives, if not by the interface towards its speaker.
    pub ingress: Option<u32>,
}

impl Dialogue {
    /// The first client's, from port 40000.
    pub fn new(kind: Kind) -> Self {
        Self {
            protocol: kind.protocol,
            client: SocketAddr::new(kind.ip.client(7), 40_000),
            listen: kind.ip.listen(),
        }
    }

    /// The same client from another port.
    pub fn port(mut self, port: u16) -> Self {
        self.client.set_port(port);
        self
    }

    /// A client with another address.
    pub fn client(mut self, address: IpAddr) -> Self {
        self.client.set_ip(address);
        self
    }

    /// Towards another service or address of it.
    pub fn listen(mut self, listen: SocketAddr) -> Self {
        self.listen = listen;
        self
    }

    /// The hash of its requests, by which rows choose flows that meet in the table.
    ///
    /// # Panics
    /// If the families differ: the row is wrong.
    pub fn hash(self) -> u64 {
        let ports = Ports::new(Be16::new(self.client.port()), Be16::new(self.listen.port()));
        let protocol = self.protocol.number();
        match (self.client.ip(), self.listen.ip()) {
            (IpAddr::V4(client), IpAddr::V4(listen)) => {
                hash::v4(&KEYS, client.into(), listen.into(), ports, protocol)
            }
            (IpAddr::V6(client), IpAddr::V6(listen)) => {
                hash::v6(&KEYS, client.into(), listen.into(), ports, protocol)
            }
            (client, listen) => panic!("{client} cannot dial {listen}"),
        }
    }

    fn says(self, speaker: Speaker, packet: Packet) -> Message {
        Message { dialogue: self, speaker, packet, ingress: None }
    }

    fn segment(self, flags: u8, sequence: u32, acknowledgement: u32) -> Message {
        let packet = Packet::tcp(self.client, self.listen, flags).with(|packet| {
            let tcp = packet.tcp_mut();
            (tcp.sequence, tcp.acknowledgement) = (sequence, acknowledgement);
        });
        self.says(Speaker::Client, packet)
    }

    /// What opens a flow: a SYN with options, or a datagram.
    pub fn first(self) -> Message {
        match self.protocol {
            Protocol::Tcp => self.syn(),
            Protocol::Udp => self.datagram(b"question"),
        }
    }

    /// What a client sends later: data.
    pub fn later(self) -> Message {
        match self.protocol {
            Protocol::Tcp => self.data(),
            Protocol::Udp => self.datagram(b"another question"),
        }
    }

    /// What a backend answers to [`Self::first`].
    pub fn answer(self, backend: &'static str) -> Message {
        match self.protocol {
            Protocol::Tcp => self.syn_ack(backend),
            Protocol::Udp => self.from(backend, Packet::udp(self.listen, self.client, b"answer")),
        }
    }

    /// What a backend sends later: data.
    pub fn later_answer(self, backend: &'static str) -> Message {
        match self.protocol {
            Protocol::Tcp => {
                self.reply(backend, ACK).with(|packet| packet.payload_mut().extend(b"HTTP/1.1 200 OK\r\n"))
            }
            Protocol::Udp => self.from(backend, Packet::udp(self.listen, self.client, b"another answer")),
        }
    }

    /// MSS, SACK, window scale: the options of any SYN.
    pub fn syn(self) -> Message {
        self.segment(SYN, CLIENT_ISN, 0)
            .with(|packet| packet.tcp_mut().options = vec![2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7, 0, 0])
    }

    /// A bare acknowledgement, so far beyond the backend's SYN-ACK.
    pub fn ack(self, beyond: u32) -> Message {
        self.segment(ACK, CLIENT_ISN + 1, BACKEND_ISN.wrapping_add(beyond))
    }

    /// A segment with data of an odd length, which acknowledges the SYN-ACK.
    pub fn data(self) -> Message {
        self.ack(1).with(|packet| packet.payload_mut().extend(b"GET / HTTP/1.1\r\n\r\n!"))
    }

    /// The client has no more to say.
    pub fn fin(self) -> Message {
        self.ack(1).with(|packet| packet.tcp_mut().flags |= FIN)
    }

    /// The client wants no more.
    pub fn rst(self) -> Message {
        self.ack(1).with(|packet| packet.tcp_mut().flags = RST)
    }

    /// A datagram of the client.
    pub fn datagram(self, payload: &[u8]) -> Message {
        self.says(Speaker::Client, Packet::udp(self.client, self.listen, payload))
    }

    /// Any packet of a backend.
    pub fn from(self, backend: &'static str, packet: Packet) -> Message {
        self.says(Speaker::Backend(backend), packet)
    }

    /// A segment of a backend.
    pub fn reply(self, backend: &'static str, flags: u8) -> Message {
        let packet = Packet::tcp(self.listen, self.client, flags).with(|packet| {
            let tcp = packet.tcp_mut();
            (tcp.sequence, tcp.acknowledgement) = (BACKEND_ISN.wrapping_add(1), CLIENT_ISN + 1);
        });
        self.from(backend, packet)
    }

    /// A backend accepts.
    pub fn syn_ack(self, backend: &'static str) -> Message {
        self.reply(backend, SYN | ACK).with(|packet| packet.tcp_mut().sequence = BACKEND_ISN)
    }

    /// A backend has no more to say.
    pub fn reply_fin(self, backend: &'static str) -> Message {
        self.reply(backend, FIN | ACK)
    }

    /// A backend refuses or gives up.
    pub fn reply_rst(self, backend: &'static str) -> Message {
        self.reply(backend, RST | ACK)
    }
}

impl Message {
    /// The message arrives by another interface than the one towards its speaker.
    pub fn arriving_by(mut self, interface: u32) -> Self {
        self.ingress = Some(interface);
        self
    }

    /// The message with a change.
    pub fn with(mut self, change: impl FnOnce(&mut Packet)) -> Self {
        change(&mut self.packet);
        self
    }
}

/// An ICMP error of a router, about a message that we forwarded.
#[derive(Clone, Debug)]
#[must_use]
pub struct IcmpError {
    /// Quoted as we forwarded it.
    pub about: Message,
    /// The backend that the message went to or came from.
    pub backend: &'static str,
    /// Its number in the network that it reports from.
    pub router: IpAddr,
    /// Its payload is the quote, and made when it is sent.
    pub icmp: Icmp,
    /// How much of the IP packet is quoted.
    pub quoted_bytes: usize,
    /// TTL or hop limit of the error itself, not of what it quotes.
    pub hops: u8,
}
