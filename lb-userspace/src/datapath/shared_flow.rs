//! A flow as the nodes of a group share it.

use std::{net::SocketAddr, time::Duration};

use lb_common::net::Protocol;

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
