//! `xlb ha`: moves the service addresses between this node and another one.

pub mod bird;
pub mod check;
pub mod keepalived;

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::{args::NodeVerb, console::Console, failure::Failure};
use crate::{
    api::client::{Client, Error},
    duration,
    exit::Exit,
    track_file::TrackFile,
    view::{Announcement, Node, Presence},
};

/// How often the addresses are looked for.
const PAUSE: Duration = Duration::from_millis(50);

pub async fn node(console: &mut Console<'_>, client: &Client, verb: NodeVerb) -> Result<(), Failure> {
    match verb {
        NodeVerb::Drain { wait } => drain(console, client, wait).await,
        NodeVerb::Ready { grace: None } => {
            client.drain_node(false).await?;
            console.say("this node may have the service addresses again")
        }
        NodeVerb::Ready { grace: Some(grace) } => judge(&TrackFile::beside(client.socket()), grace),
    }
}

async fn drain(console: &mut Console<'_>, client: &Client, at_most: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + at_most;
    let mut node = client.drain_node(true).await?;
    while node.state != Presence::Standby {
        if !node.drained {
            return Err(Failure::new(Exit::Conflict, "the drain was ended by another command"));
        }
        if Instant::now() >= deadline {
            return Err(too_late(&node, client, at_most));
        }
        sleep(PAUSE).await;
        node = match client.node().await {
            Ok(node) => node,
            // A busy daemon may answer the next request.
            Err(Error::TimedOut { .. }) if Instant::now() < deadline => node,
            Err(error) => return Err(error.into()),
        };
    }
    console.say(
        "drained: no service address is on this host, and it may be stopped; `xlb ha ready` ends the drain",
    )
}

fn too_late(node: &Node, client: &Client, at_most: Duration) -> Failure {
    let state = if node.state == Presence::Active { "all" } else { "some" };
    let message =
        format!("{state} service addresses are still on this host after {}", duration::show(at_most));
    let hint = match &node.announce {
        Some(Announcement { device, .. }) => format!(
            "it stays drained; xlb has taken its own addresses off {device}: take the others off by hand"
        ),
        None => format!(
            "it stays drained; keepalived must follow {} (see `xlb ha keepalived`), or take the addresses off by hand",
            TrackFile::beside(client.socket()).path().display()
        ),
    };
    Failure::new(Exit::Failed, message).hint(hint)
}

/// A dead daemon moves no address at once, because traffic flows. But what it knew of the health of backends is old.
fn judge(track_file: &TrackFile, grace: Duration) -> Result<(), Failure> {
    let Some(written) = track_file.written() else {
        let message = format!("{} does not exist: no daemon has run", track_file.path().display());
        return Err(Failure::new(Exit::Failed, message));
    };
    // The clock may have been set back.
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    if age < grace {
        return Ok(());
    }
    let age = duration::show(Duration::from_secs(age.as_secs()));
    let message = format!("the daemon has not written {} for {age}", track_file.path().display());
    Err(Failure::new(Exit::Failed, message))
}
