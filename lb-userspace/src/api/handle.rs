//! The API's handle to the controller: one request, one answer, within a timeout.

use std::{future::Future, pin::Pin, time::Duration};

use axum::http::StatusCode;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    api::problem::Refusal,
    duration,
    event::{Event, ProbeResult, Reply, Request, Target},
    problem::Problem,
    spec::BackendName,
};

/// Timeout of an answer, including the time in the queue.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest timeout of a probe on request, whatever its check's timeout.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// Probes a target once.
pub type Probe = fn(Target) -> Pin<Box<dyn Future<Output = ProbeResult> + Send>>;

/// Each connection has a clone.
#[derive(Clone, Debug)]
pub struct ControllerHandle {
    events: mpsc::Sender<Event>,
    probe: Probe,
}

impl ControllerHandle {
    /// `events` are sent to the controller; `probe` runs in the task of the connection.
    pub fn new(events: mpsc::Sender<Event>, probe: Probe) -> Self {
        Self { events, probe }
    }

    /// Sends a request to the controller.
    pub async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        match timeout(ANSWER_TIMEOUT, self.exchange(request)).await {
            Ok(Some(answer)) => answer.map_err(Refusal::from),
            Ok(None) => Err(Refusal::http(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")),
            Err(_elapsed) => Err(Refusal::http(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "no answer within {}; the operation may still complete",
                    duration::show(ANSWER_TIMEOUT)
                ),
            )),
        }
    }

    /// Probes a backend in this task. The controller only provides the target, and never waits for the network.
    pub async fn probe(&self, backend: BackendName) -> Result<ProbeResult, Refusal> {
        let target = self.ask(|reply| Request::Probe { backend, reply }).await?;
        timeout(PROBE_TIMEOUT, (self.probe)(target)).await.map_err(|_elapsed| {
            let detail = format!("the probe did not end within {}", duration::show(PROBE_TIMEOUT));
            Refusal::http(StatusCode::GATEWAY_TIMEOUT, detail)
        })
    }

    /// `None`: the controller has ended.
    async fn exchange<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Option<Result<T, Problem>> {
        let (reply, answer) = Reply::channel();
        self.events.send(Event::Request(request(reply))).await.ok()?;
        answer.await.ok()
    }
}
