//! Requests of the API and the daemon to the controller.
//!
//! Each request carries the way back for its answer, so an answer of another type does not compile.

use std::fmt;

use tokio::sync::oneshot;

use super::Target;
use crate::{
    problem::Problem,
    spec::{BackendName, BackendPatch, NewBackend},
    view,
};

/// The way back for the answer to one request.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<Result<T, Problem>>);

/// Where the answer arrives. It is an error if the controller is gone.
pub type Answer<T> = oneshot::Receiver<Result<T, Problem>>;

impl<T> Reply<T> {
    /// A way back, and where it ends.
    pub fn channel() -> (Self, Answer<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers. A client that has gone meanwhile is not an error.
    pub fn send(self, answer: Result<T, Problem>) {
        let _gone = self.0.send(answer);
    }

    /// Has the client gone?
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// A question or a command.
#[derive(Debug)]
pub enum Request {
    /// `GET /v1/status`, and what `/readyz` judges by.
    Status(Reply<view::Status>),
    /// `GET /v1/services`: in the order of the file.
    Services(Reply<Vec<view::Service>>),
    /// `GET /v1/backends`, and those of one service: in the order of the file.
    Backends {
        /// `None`: those of all services.
        service: Option<String>,
        /// The way back.
        reply: Reply<Vec<view::Backend>>,
    },
    /// `GET` of one backend.
    Backend {
        /// Of the file, or added by command.
        backend: BackendName,
        /// The way back.
        reply: Reply<view::Backend>,
    },
    /// `GET /v1/health`: in the order of the file.
    Health(Reply<Vec<view::HealthState>>),
    /// Where a backend is to be probed. The API's own task probes: the controller never waits for the network.
    Probe {
        /// Of the file, or added by command.
        backend: BackendName,
        /// The way back.
        reply: Reply<Target>,
    },
    /// `GET /v1/flows`: answered when the tables have been walked, or the list is full.
    Flows {
        /// Which flows.
        query: view::FlowQuery,
        /// The way back. The list has no order.
        reply: Reply<Vec<view::Flow>>,
    },
    /// `GET /v1/flows/count`
    FlowCount(Reply<view::FlowCount>),
    /// `GET /v1/stats`: each service, followed by its backends.
    Stats(Reply<Vec<view::Stats>>),
    /// `GET /metrics`: the text format of Prometheus.
    Metrics(Reply<String>),
    /// `POST /v1/reload`, and SIGHUP: answered when the file is in force.
    Reload(Reply<view::Reloaded>),
    /// `POST /v1/detach`: answered when the data plane is gone.
    Detach(Reply<()>),
    /// `POST` to a backend: kept in the overlay.
    AddBackend {
        /// A name that its service does not have so far.
        backend: BackendName,
        /// What the file would say of it.
        body: NewBackend,
        /// The way back: the backend, with flows that were counted after the change was in force.
        reply: Reply<view::Backend>,
    },
    /// `DELETE` of a backend: kept in the overlay.
    RemoveBackend {
        /// Of the file, or added by command.
        backend: BackendName,
        /// The way back.
        reply: Reply<()>,
    },
    /// `PATCH` of a backend: kept in the overlay.
    PatchBackend {
        /// Of the file, or added by command.
        backend: BackendName,
        /// What is not in it stays.
        body: BackendPatch,
        /// The way back: the backend as after [`AddBackend`](Self::AddBackend). `None`: the file no longer has it, and
        /// the command ended what was kept of it.
        reply: Reply<Option<view::Backend>>,
    },
}

/// Does the same with the reply of any request.
macro_rules! with_reply {
    ($request:expr, $reply:ident => $action:expr) => {
        match $request {
            Request::Status($reply) => $action,
            Request::Services($reply) => $action,
            Request::Backends { reply: $reply, .. } => $action,
            Request::Backend { reply: $reply, .. } => $action,
            Request::Health($reply) => $action,
            Request::Probe { reply: $reply, .. } => $action,
            Request::Flows { reply: $reply, .. } => $action,
            Request::FlowCount($reply) => $action,
            Request::Stats($reply) => $action,
            Request::Metrics($reply) => $action,
            Request::Reload($reply) => $action,
            Request::Detach($reply) => $action,
            Request::AddBackend { reply: $reply, .. } => $action,
            Request::RemoveBackend { reply: $reply, .. } => $action,
            Request::PatchBackend { reply: $reply, .. } => $action,
        }
    };
}

impl Request {
    /// Has the client gone?
    pub fn is_abandoned(&self) -> bool {
        with_reply!(self, reply => reply.is_closed())
    }

    /// Answers with a problem.
    pub fn refuse(self, problem: Problem) {
        with_reply!(self, reply => reply.send(Err(problem)));
    }
}

/// For the log: the command, or the object that it shows.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(_) => f.write_str("status"),
            Self::Services(_) => f.write_str("services"),
            Self::Backends { service: None, .. } => f.write_str("backends"),
            Self::Backends { service: Some(service), .. } => write!(f, "backends of {service}"),
            Self::Backend { backend, .. } => write!(f, "backend {backend}"),
            Self::Health(_) => f.write_str("health"),
            Self::Probe { backend, .. } => write!(f, "probe of {backend}"),
            Self::Flows { .. } => f.write_str("flows"),
            Self::FlowCount(_) => f.write_str("flow count"),
            Self::Stats(_) => f.write_str("stats"),
            Self::Metrics(_) => f.write_str("metrics"),
            Self::Reload(_) => f.write_str("reload"),
            Self::Detach(_) => f.write_str("detach"),
            Self::AddBackend { backend, body, .. } => write!(f, "add backend {backend} at {}", body.address),
            Self::RemoveBackend { backend, .. } => write!(f, "remove backend {backend}"),
            Self::PatchBackend { backend, body, .. } => write!(f, "change backend {backend}: {body}"),
        }
    }
}
