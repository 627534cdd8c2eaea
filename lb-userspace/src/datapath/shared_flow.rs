//! A flow as the nodes of a group share it.

use std::{net::SocketAddr, time::Duration};

use lb_common::net::{Address, Be16, Ports, Protocol};
use lb_ebpf::family::{Family, Tuple};

/// Nothing in it depends on the maps of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFlow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client's address.
    pub client: SocketAddr,
    /// The listen address that the client sent to.
    pub listen: SocketAddr,
    /// Where requests are sent.
    pub backend: SocketAddr,
    /// The source that the backend sees.
    pub source: SocketAddr,
    /// TCP: the sequence number of the backend's SYN-ACK, if it is known.
    pub answer: Option<u32>,
    /// Time since the last packet.
    pub idle: Duration,
}

impl SharedFlow {
    /// The tuple of its requests. The family is that of its addresses.
    pub fn request<F: Family>(&self) -> Tuple<F> {
        self.tuple(self.client, self.listen)
    }

    /// The tuple of its replies.
    pub fn reply<F: Family>(&self) -> Tuple<F> {
        self.tuple(self.backend, self.source)
    }

    fn tuple<F: Family>(&self, source: SocketAddr, destination: SocketAddr) -> Tuple<F> {
        let address = |it: SocketAddr| F::from_key(Address::from(it.ip()));
        let port = |it: SocketAddr| Be16::new(it.port());
        Tuple {
            source: address(source),
            destination: address(destination),
            ports: Ports::new(port(source), port(destination)),
            protocol: self.protocol.number().into(),
        }
    }
}
