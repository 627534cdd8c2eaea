//! Finds the next hop of each backend, and has the kernel resolve neighbours.
//!
//! ```text
//!   netlink's messages ─▶ decode ─▶ network ─┐ a few ms later
//!   every 10 s, after a gap: a full read ────┴▶ routes ─▶ resolve ─▶ outbox ─▶ Hops, RoutingChanged, LinksChanged
//!   the program's requests, silent and stale neighbours ─▶ limiter ─▶ kernel: NTF_USE
//! ```
//!
//! Messages keep links and neighbours up to date, and trigger route lookups. The listener subscribes before the first
//! full read, so that no change is missed. The first read reports everything as changed, because nothing was watched
//! before.

mod decode;
mod limiter;
mod netlink;
mod network;
mod outbox;
mod resolve;
mod watcher;

use std::collections::BTreeSet;

use lb_common::event::NeighbourWanted;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::watcher::Watcher;
use crate::{
    datapath::Attached,
    event::{Event, Path},
};

/// Watches the `wanted` paths to backends through the attached `interfaces`, until shutdown or until `wanted`,
/// `interfaces` or `events` is closed.
pub async fn run(
    wanted: watch::Receiver<BTreeSet<Path>>,
    interfaces: watch::Receiver<Vec<Attached>>,
    requests: mpsc::Receiver<NeighbourWanted>,
    events: mpsc::Sender<Event>,
    shutdown: CancellationToken,
) {
    let mut watcher = Watcher::new(wanted, interfaces, requests, events);
    tokio::select! {
        () = watcher.watch() => {}
        () = shutdown.cancelled() => {}
    }
}
