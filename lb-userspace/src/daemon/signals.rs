//! SIGHUP reloads; SIGTERM and SIGINT stop.

use std::future::Future;

use anyhow::Context;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::event::{Event, Reply, Request};

/// The signal handlers.
pub struct Signals<S> {
    pub hangup: Signal,
    /// Ends when the daemon is to stop.
    pub stop: S,
}

/// Installs the handlers, before there is anything to interrupt.
pub fn listen() -> anyhow::Result<Signals<impl Future<Output = ()>>> {
    let catch = |kind| signal(kind).context("cannot catch signals");
    let hangup = catch(SignalKind::hangup())?;
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(Signals { hangup, stop })
}

/// Reloads on SIGHUP. The controller logs the changes, or the mistakes in the file.
pub async fn reload_on_hangup(mut hangup: Signal, events: mpsc::Sender<Event>, stop: CancellationToken) {
    loop {
        tokio::select! {
            received = hangup.recv() => if received.is_none() { return },
            () = stop.cancelled() => return,
        }
        let (reply, answer) = Reply::channel();
        if events.send(Event::Request(Request::Reload(reply))).await.is_err() {
            return;
        }
        // Awaited, because the controller does not execute commands whose sender has gone.
        let _logged = answer.await;
    }
}
