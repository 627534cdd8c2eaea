//! `xlb ha`: moves the service addresses between this node and another one.

pub mod keepalived;

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::{args::NodeVerb, console::Console, failure::Failure};
use crate::{
    api::client::{Client, Error},
    duration,
    exit::Exit,
    track_file::TrackFile,
    view::{Node, Presence},
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
        NodeVerb::Ready { grace: Some(grace) } => judge(client, grace).await,
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
        node = match client.status().await {
            Ok(status) => status.node,
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
    let track_file = TrackFile::beside(client.socket());
    Failure::new(Exit::Failed, message).hint(format!(
        "it stays drained; keepalived must follow {} (see `xlb ha keepalived`), or take the addresses off by hand",
        track_file.path().display()
    ))
}

/// A dead daemon moves no address at once, because traffic flows. But its view of health is frozen.
async fn judge(client: &Client, grace: Duration) -> Result<(), Failure> {
    if client.is_alive().await {
        return Ok(());
    }
    let track_file = TrackFile::beside(client.socket());
    let age = track_file.written().and_then(|at| SystemTime::now().duration_since(at).ok());
    match age {
        Some(age) if age < grace => Ok(()),
        Some(age) => {
            let age = Duration::from_secs(age.as_secs());
            let message =
                format!("the daemon does not answer, and has written nothing for {}", duration::show(age));
            Err(Failure::new(Exit::Failed, message))
        }
        None => Err(Failure::new(
            Exit::Failed,
            format!("the daemon does not answer, and there is no {}", track_file.path().display()),
        )),
    }
}
