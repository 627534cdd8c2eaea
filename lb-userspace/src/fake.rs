//! A daemon for tests of the API and the CLI: the real API on a real socket, with a function as controller.

mod balancer;

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    thread,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use tokio::{
    runtime,
    sync::{
        mpsc::{self, Receiver},
        oneshot,
    },
    task::JoinHandle,
};

use crate::{
    api::{handle::ControllerHandle, listen, server},
    event::{Event, ProbeResult, Request, Target},
    probe::{Facts, ProbeOutcome},
};

pub use balancer::Balancer;

/// A daemon that serves its API until it is dropped.
pub struct Daemon {
    directory: TempDir,
    /// Dropping it ends the daemon's task.
    _stop: oneshot::Sender<()>,
}

impl Daemon {
    /// Serves in the test's own runtime.
    pub async fn start(controller: impl FnMut(Request) + Send + 'static) -> Self {
        Self::of(self::controller(controller).0).await
    }

    pub async fn of(controller: ControllerHandle) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel();
        let socket = listen::socket(&socket_in(directory.path())).await.unwrap();
        tokio::spawn(server::serve_socket(socket, controller, async { drop(stopped.await) }));
        Self { directory, _stop: stop }
    }

    /// Serves in a thread of its own, for tests that block.
    pub fn in_a_thread(controller: impl FnMut(Request) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let path = socket_in(directory.path());
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = listen::socket(&path).await.unwrap();
                ready.send(()).unwrap();
                let (controller, _task) = self::controller(controller);
                server::serve_socket(socket, controller, async { drop(stopped.await) }).await;
            });
        });
        is_ready.recv().unwrap();
        Self { directory, _stop: stop }
    }

    pub fn socket(&self) -> PathBuf {
        socket_in(self.directory.path())
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("xlb.sock")
}

/// A function as controller. A request that it drops is answered with "the daemon is stopping".
pub fn controller(
    mut controller: impl FnMut(Request) + Send + 'static,
) -> (ControllerHandle, JoinHandle<()>) {
    let (handle, mut events) = inbox();
    let task = tokio::spawn(async move {
        while let Some(Event::Request(request)) = events.recv().await {
            controller(request);
        }
    });
    (handle, task)
}

/// The test itself as controller.
pub fn inbox() -> (ControllerHandle, Receiver<Event>) {
    let (events, receiver) = mpsc::channel(8);
    (ControllerHandle::new(events, probe), receiver)
}

/// `web-3` answers with an error that contains terminal control characters.
pub fn probe(target: Target) -> Pin<Box<dyn Future<Output = ProbeResult> + Send>> {
    let (outcome, detail) = match target.backend.backend.as_str() {
        "web-3" => (ProbeOutcome::Failure, "HTTP 500 \u{1b}[2J"),
        _ => (ProbeOutcome::Success, "connected"),
    };
    let (detail, duration) = (detail.to_owned(), Duration::from_micros(1500));
    let result =
        ProbeResult { outcome, detail, facts: Facts::default(), duration, at: SystemTime::UNIX_EPOCH };
    Box::pin(async move { result })
}
