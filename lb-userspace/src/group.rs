//! The nodes of a group share their flows, so that each can continue the connections of the others.
//!
//! ```text
//!              this node                                           a peer
//!   exchange ─ outbox ─▶ publisher ── frames (mutual TLS 1.3) ──▶ dialer ─ Input ─▶ exchange
//!            ◀─ Input ──     ▲    ◀──── acknowledgements ────────
//!                         acceptor
//!   exchange ◀─ Input ── dialer   ◀──────── frames ───────────── publisher ◀ outbox ─ exchange
//! ```
//!
//! Each node subscribes to the flows of each peer, so between two nodes there are two connections. The exchange decides what
//! is sent and what becomes of what is received; the sessions here only carry it. They keep nothing: after a connection has
//! ended, the next one begins with all flows.

mod accept;
pub mod computation;
mod dial;
pub mod digest;
pub mod exchange;
mod occasionally;
pub mod port;
mod publisher;
mod session;
pub mod skip;
pub mod status;
pub mod tls;
pub mod view;
pub mod wire;

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{
    accept::Acceptor,
    dial::Dialer,
    port::{Connections, Input, PeerNumber, Refusals},
    publisher::Publisher,
    session::Session,
    tls::Credentials,
    wire::Hello,
};
use crate::{
    api::listen::{self, Pending},
    spec::Group,
};

/// Frames that the kernel keeps for a subscriber, in bytes (the kernel doubles it). It is enough for 60,000 flows/s over 60
/// ms, and so little that a subscriber which reads nothing is noticed by its [outbox](port::OUTBOX).
const SEND_BUFFER_BYTES: u32 = 256 * 1024;

/// Binds the address where peers connect. If this host does not have it, that is no error: it may appear later.
pub fn bind(group: &Group) -> Result<Pending, listen::Error> {
    Pending::bind(group.listen, listen::Part::Group, Some(SEND_BUFFER_BYTES))
}

/// Starts the sessions: they run until `stop`. `own_hello`: its version and clock are set when it is sent. Returns what counts
/// the connections that they refuse.
pub fn start(
    group: &Group,
    listener: Pending,
    own_hello: &watch::Receiver<Hello>,
    inputs: &mpsc::Sender<Input>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Refusals {
    let connections = Connections::default();
    let mut arrivals = Vec::new();
    for (place, peer) in group.peers.iter().enumerate() {
        let node = peer.node.clone();
        let session = Session { peer: PeerNumber(place), node, connection: 0, inputs: inputs.clone() };
        let dialer = Dialer {
            credentials: Credentials::new(group),
            from: group.listen,
            address: peer.address,
            own_hello: own_hello.clone(),
            connections: connections.clone(),
            session: session.clone(),
        };
        let (sender, receiver) = mpsc::channel(1);
        arrivals.push(sender);
        let publisher = Publisher {
            arrivals: receiver,
            own_hello: own_hello.clone(),
            connections: connections.clone(),
            session,
        };
        tasks.spawn(until(stop, dialer.run()));
        tasks.spawn(until(stop, publisher.run()));
    }
    let refusals = Refusals::default();
    let acceptor = Acceptor {
        credentials: Credentials::new(group),
        own_hello: own_hello.clone(),
        peers: group.peers.clone().into(),
        arrivals,
        refusals: refusals.clone(),
    };
    tasks.spawn(until(stop, acceptor.run(listener)));
    refusals
}

fn until(
    stop: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let stopped = stop.clone().cancelled_owned();
    async {
        tokio::select! {
            () = task => {}
            () = stopped => {}
        }
    }
}

#[cfg(test)]
mod tests;
