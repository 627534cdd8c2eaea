//! The packets of a client and its backends. Rows write them without xlb's own addresses, which are known only after
//! the first packet was forwarded.

use std::net::{IpAddr, SocketAddr};

use lb_common::net::{Be16, Ports, Protocol};
use lb_ebpf::{
    packet::tcp::{ACK, FIN, RST, SYN},
    table::hash::{self, Keys},
};

use crate::{
    packet::{Icmp, Packet},
    world::{KEYS, Kind},
};

/// The sequence number of every SYN-ACK. Sequence numbers wrap soon after it.
pub const BACKEND_ISN: u32 = u32::MAX - 10;
/// The sequence number of every SYN.
pub const CLIENT_ISN: u32 = 1000;

/// One of several flows of a client. Each number has a port of its own.
pub fn flow(kind: Kind, number: u16) -> Dialogue {
    Dialogue::new(kind).port(40_000 + number)
}

/// A client's endpoint, and the listen address that it connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dialogue {
    /// TCP and UDP dialogues may have the same endpoints.
    pub protocol: Protocol,
    /// The source of requests.
    pub client: SocketAddr,
    /// The destination of requests.
    pub listen: SocketAddr,
}

/// The side that sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client.
    Client,
    /// The backend of this name.
    Backend(&'static str),
}

/// A packet of a dialogue, as its sender sends it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Message {
    /// The dialogue that it belongs to.
    pub dialogue: Dialogue,
    /// The side that sends it, which gives its direction.
    pub sender: Sender,
    /// Its addresses and ports are set when it is sent.
    pub packet: Packet,
    /// The interface where it arrives, if it is not the one towards its sender.
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

    /// The hash of its requests in the flow table. Rows use it to choose flows of the same bucket.
    ///
    /// # Panics
    /// If the families differ: the row is wrong.
    pub fn hash(self) -> u64 {
        self.hash_by(&KEYS)
    }

    /// The hash of its requests with other keys.
    ///
    /// # Panics
    /// If the families differ: the row is wrong.
    pub fn hash_by(self, keys: &Keys) -> u64 {
        let ports = Ports::new(Be16::new(self.client.port()), Be16::new(self.listen.port()));
        let protocol = self.protocol.number();
        match (self.client.ip(), self.listen.ip()) {
            (IpAddr::V4(client), IpAddr::V4(listen)) => {
                hash::v4(keys, client.into(), listen.into(), ports, protocol)
            }
            (IpAddr::V6(client), IpAddr::V6(listen)) => {
                hash::v6(keys, client.into(), listen.into(), ports, protocol)
            }
            (client, listen) => panic!("{client} cannot connect to {listen}"),
        }
    }

    fn message(self, sender: Sender, packet: Packet) -> Message {
        Message { dialogue: self, sender, packet, ingress: None }
    }

    fn segment(self, flags: u8, sequence: u32, acknowledgement: u32) -> Message {
        let packet = Packet::tcp(self.client, self.listen, flags).with(|packet| {
            let tcp = packet.tcp_mut();
            (tcp.sequence, tcp.acknowledgement) = (sequence, acknowledgement);
        });
        self.message(Sender::Client, packet)
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

    /// A bare ACK of the sequence number that is this far beyond the backend's SYN-ACK.
    pub fn ack(self, beyond: u32) -> Message {
        self.segment(ACK, CLIENT_ISN + 1, BACKEND_ISN.wrapping_add(beyond))
    }

    /// A segment with data of an odd length, which acknowledges the SYN-ACK.
    pub fn data(self) -> Message {
        self.ack(1).with(|packet| packet.payload_mut().extend(b"GET / HTTP/1.1\r\n\r\n!"))
    }

    /// The client's FIN.
    pub fn fin(self) -> Message {
        self.ack(1).with(|packet| packet.tcp_mut().flags |= FIN)
    }

    /// The client's RST.
    pub fn rst(self) -> Message {
        self.ack(1).with(|packet| packet.tcp_mut().flags = RST)
    }

    /// A datagram of the client.
    pub fn datagram(self, payload: &[u8]) -> Message {
        self.message(Sender::Client, Packet::udp(self.client, self.listen, payload))
    }

    /// Any packet of a backend.
    pub fn from(self, backend: &'static str, packet: Packet) -> Message {
        self.message(Sender::Backend(backend), packet)
    }

    /// A segment of a backend.
    pub fn reply(self, backend: &'static str, flags: u8) -> Message {
        let packet = Packet::tcp(self.listen, self.client, flags).with(|packet| {
            let tcp = packet.tcp_mut();
            (tcp.sequence, tcp.acknowledgement) = (BACKEND_ISN.wrapping_add(1), CLIENT_ISN + 1);
        });
        self.from(backend, packet)
    }

    /// A backend's SYN-ACK.
    pub fn syn_ack(self, backend: &'static str) -> Message {
        self.reply(backend, SYN | ACK).with(|packet| packet.tcp_mut().sequence = BACKEND_ISN)
    }

    /// A backend's FIN.
    pub fn reply_fin(self, backend: &'static str) -> Message {
        self.reply(backend, FIN | ACK)
    }

    /// A backend's RST.
    pub fn reply_rst(self, backend: &'static str) -> Message {
        self.reply(backend, RST | ACK)
    }
}

impl Message {
    /// Sets another interface of arrival than the one towards the sender.
    pub fn arriving_by(mut self, interface: u32) -> Self {
        self.ingress = Some(interface);
        self
    }

    /// Changes the packet.
    pub fn with(mut self, change: impl FnOnce(&mut Packet)) -> Self {
        change(&mut self.packet);
        self
    }
}

/// A router's ICMP error about a message that xlb forwarded.
#[derive(Clone, Debug)]
#[must_use]
pub struct IcmpError {
    /// The message, quoted as xlb forwarded it.
    pub about: Message,
    /// The backend that the message went to or came from.
    pub backend: &'static str,
    /// The router's address.
    pub router: IpAddr,
    /// The error. Its payload, the quote, is filled in when it is sent.
    pub icmp: Icmp,
    /// How much of the IP packet is quoted.
    pub quoted_bytes: usize,
    /// TTL or hop limit of the error itself, not of what it quotes.
    pub hops: u8,
}
