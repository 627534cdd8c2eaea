//! What sessions tell the exchange, and what the exchange gives to them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::wire::{Frame, Hello};

/// Inputs queued for the exchange. Sessions wait while the queue is full: that slows the peer's stream, and takes no memory.
pub const INPUTS: usize = 256;
/// Frames queued for a subscriber: at one each 2 ms, what it may be late by before it loses the queue, 128 ms.
pub const OUTBOX: usize = 64;

/// The place of a peer in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerNumber(pub usize);

/// What sessions tell the exchange.
#[derive(Debug)]
pub enum Input {
    /// A peer has subscribed to the flows of this node. An older subscription of the same peer has ended before.
    Subscribed {
        /// Who.
        peer: PeerNumber,
        /// A new number for each connection.
        connection: u64,
        /// What the peer said of itself.
        hello: Hello,
        /// Takes the frames for it. Once this is dropped, the connection ends.
        outbox: mpsc::Sender<Arc<Frame>>,
    },
    /// The peer has acknowledged frames up to this sequence number.
    Acknowledged {
        /// Who.
        peer: PeerNumber,
        /// That of `Subscribed`.
        connection: u64,
        /// More than before.
        sequence: u64,
    },
    /// The subscription has ended.
    Unsubscribed {
        /// Who.
        peer: PeerNumber,
        /// That of `Subscribed`.
        connection: u64,
        /// For the operator.
        why: String,
    },
    /// This node has subscribed to the flows of a peer.
    Connected {
        /// Who.
        peer: PeerNumber,
        /// A new number for each connection.
        connection: u64,
        /// What the peer said of itself.
        hello: Hello,
    },
    /// A frame of the peer that is not empty.
    Received {
        /// Who.
        peer: PeerNumber,
        /// That of `Connected`.
        connection: u64,
        /// Decoded, but for its flows.
        frame: Frame,
    },
    /// The subscription of this node has ended, or could not begin: then there was no `Connected` before.
    Disconnected {
        /// Who.
        peer: PeerNumber,
        /// That of `Connected`, or a new one.
        connection: u64,
        /// For the operator.
        why: String,
    },
}

/// Counts connections to this node that were refused: without a certificate of a peer, without a hello, or too many at once.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<AtomicU64>);

impl Refusals {
    /// One more.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// All since the start.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers connections, in both directions.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<AtomicU64>);

impl Connections {
    /// A number that no other connection has.
    pub fn number(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
