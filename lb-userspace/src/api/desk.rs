//! Where the API asks the controller: one question, one answer, in bounded time.

use std::{future::Future, pin::Pin, time::Duration};

use axum::http::StatusCode;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    api::problem::Refusal,
    event::{Answer, Event, ProbeOutcome, ProbeResult, Request, Target},
    spec::BackendName,
    view,
};

/// How long the controller may take for an answer, its queue included.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a probe that somebody asked for may take, whatever its check says.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// Probes a target once.
pub type Probe = fn(Target) -> Pin<Box<dyn Future<Output = ProbeResult> + Send>>;

/// Each connection has a clone.
#[derive(Clone, Debug)]
pub struct Desk {
    events: mpsc::Sender<Event>,
    probe: Probe,
}

impl Desk {
    /// `events` leads to the controller; `probe` runs in the task of whoever asked.
    pub fn new(events: mpsc::Sender<Event>, probe: Probe) -> Self {
        Self { events, probe }
    }

    /// Asks the controller.
    pub async fn ask(&self, request: Request) -> Result<Answer, Refusal> {
        match timeout(ANSWER_TIMEOUT, self.exchange(request)).await {
            Ok(Some(answer)) => answer.map_err(Refusal::from),
            Ok(None) => Err(Refusal::http(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")),
            Err(_elapsed) => Err(Refusal::http(
                StatusCode::GATEWAY_TIMEOUT,
                format!("no answer within {ANSWER_TIMEOUT:?}; what was asked for may still happen"),
            )),
        }
    }

    /// Probes a backend from this task: the controller only says where, it never waits for the network.
    pub async fn probe(&self, backend: BackendName) -> Result<view::ProbeResult, Refusal> {
        let Answer::Probe(target) = self.ask(Request::Probe { backend }).await? else {
            return Err(unfit());
        };

        match timeout(PROBE_TIMEOUT, (self.probe)(target)).await {
            Ok(result) => Ok(shown(&result)),
            Err(_elapsed) => Err(Refusal::http(
                StatusCode::GATEWAY_TIMEOUT,
                format!("the probe did not end within {PROBE_TIMEOUT:?}"),
            )),
        }
    }

    /// `None`: the controller is gone.
    async fn exchange(&self, request: Request) -> Option<Result<Answer, crate::problem::Problem>> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Request(request, reply)).await.ok()?;
        answer.await.ok()
    }
}

/// The controller answered another question: a bug, but not one to fall over.
pub fn unfit() -> Refusal {
    Refusal::http(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the answer does not fit the question; please report this",
    )
}

fn shown(result: &ProbeResult) -> view::ProbeResult {
    view::ProbeResult {
        result: outcome_name(result.outcome).to_owned(),
        detail: result.detail.clone(),
        duration_seconds: result.duration.as_secs_f64(),
    }
}

/// The name of an outcome in JSON and metrics.
pub const fn outcome_name(outcome: ProbeOutcome) -> &'static str {
    match outcome {
        ProbeOutcome::Success => "success",
        ProbeOutcome::Failure => "failure",
        ProbeOutcome::Timeout => "timeout",
    }
}
