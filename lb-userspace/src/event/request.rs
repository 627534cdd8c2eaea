//! Requests of the API and the daemon to the controller.
//!
//! Each request carries the channel of its answer, so that an answer of the wrong type does not compile.

use std::fmt;

use tokio::sync::oneshot;

use super::Target;
use crate::{
    metrics,
    problem::Problem,
    spec::{BackendName, BackendPatch, NewBackend},
    view,
};

/// The channel for the answer to one request.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<Result<T, Problem>>);

/// The future answer. It is an error if the controller has ended.
pub type Answer<T> = oneshot::Receiver<Result<T, Problem>>;

impl<T> Reply<T> {
    /// A reply channel and its receiver.
    pub fn channel() -> (Self, Answer<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Sends the answer, which is dropped if the client has gone.
    pub fn send(self, answer: Result<T, Problem>) {
        let _gone = self.0.send(answer);
    }

    /// Has the client gone?
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// A query or a command.
#[derive(Debug)]
pub enum Request {
    /// `GET /v1/status`
    Status(Reply<view::Status>),
    /// `GET /readyz`: why this node or one service is not ready, one line each.
    Readiness {
        /// `None`: the node, with all services.
        service: Option<String>,
        /// The reply channel.
        reply: Reply<Vec<String>>,
    },
    /// `GET /v1/node`: whether this host has the listen addresses.
    Node(Reply<view::Node>),
    /// `POST` and `DELETE /v1/node/drain`. Answered when the track file says so, and it is on disk.
    DrainNode {
        /// False: it may be active again.
        is_drained: bool,
        /// The reply channel.
        reply: Reply<view::Node>,
    },
    /// `GET /v1/group`: the nodes that share flows.
    Group(Reply<view::Group>),
    /// `GET /v1/services`, in the order of the file.
    Services(Reply<Vec<view::Service>>),
    /// `GET /v1/backends`, or those of one service, in the order of the file.
    Backends {
        /// `None`: all services.
        service: Option<String>,
        /// The reply channel.
        reply: Reply<Vec<view::Backend>>,
    },
    /// `GET` of one backend.
    Backend {
        /// From the file, or added by command.
        backend: BackendName,
        /// The reply channel.
        reply: Reply<view::Backend>,
    },
    /// `GET /v1/health`, in the order of the file.
    Health(Reply<Vec<view::HealthState>>),
    /// The target for a probe, which the API's task runs: the controller never waits for the network.
    Probe {
        /// From the file, or added by command.
        backend: BackendName,
        /// The reply channel.
        reply: Reply<Target>,
    },
    /// `GET /v1/roles`: the services with a role, in the order of the file.
    Roles(Reply<Vec<view::ServiceRole>>),
    /// `POST` to a service: ends all flows of its primary, and lets none begin until there is a newer primary. Answered
    /// when the maps have followed and it is on disk.
    Fence {
        /// A service with `role = "primary"`.
        service: String,
        /// The reply channel.
        reply: Reply<view::ServiceRole>,
    },
    /// `DELETE` of the fence of a service.
    Unfence {
        /// A service with `role = "primary"`.
        service: String,
        /// The reply channel.
        reply: Reply<view::ServiceRole>,
    },
    /// `POST` to a backend that says primary: it is the primary, whatever the others say.
    Force {
        /// A backend of a service with `role = "primary"`.
        backend: BackendName,
        /// The reply channel.
        reply: Reply<view::ServiceRole>,
    },
    /// `GET /v1/flows`. Answered when the tables have been walked, or the list is full.
    Flows {
        /// Which flows.
        query: view::FlowQuery,
        /// The reply channel. The list is unordered.
        reply: Reply<Vec<view::Flow>>,
    },
    /// `DELETE /v1/flows`. Answered when the tables have been walked, or the limit is reached.
    RemoveFlows {
        /// Which flows, and at most how many.
        query: view::FlowQuery,
        /// The reply channel.
        reply: Reply<view::FlowsRemoved>,
    },
    /// `GET /v1/flows/count`
    FlowCount(Reply<view::FlowCount>),
    /// `GET /v1/stats`: each service, followed by its backends.
    Stats(Reply<Vec<view::Stats>>),
    /// `GET /metrics`: the values. The API's task renders them, so that other requests need not wait for it.
    Metrics(Reply<metrics::Input>),
    /// `POST /v1/reload`, and SIGHUP. Answered when the file has been applied.
    Reload(Reply<view::Reloaded>),
    /// `POST /v1/detach`. Answered when the data plane is removed.
    Detach(Reply<()>),
    /// `GET /v1/cluster`: what the nodes of a fleet have in common, and which of them run it.
    Cluster(Reply<view::Cluster>),
    /// `GET /v1/cluster/document`: the services that are stored.
    ClusterDocument(Reply<view::ClusterDocument>),
    /// `PUT /v1/cluster/document`. Answered when it is stored and in force on this node.
    Push {
        /// The services.
        push: view::ClusterPush,
        /// The reply channel.
        reply: Reply<view::ClusterPushed>,
    },
    /// `POST` to a backend. Kept in the overlay.
    AddBackend {
        /// A name that is unused in its service.
        backend: BackendName,
        /// The same settings as in the file.
        body: NewBackend,
        /// The reply channel: the backend, with flows that were counted after the change.
        reply: Reply<view::Backend>,
    },
    /// `DELETE` of a backend. Kept in the overlay.
    RemoveBackend {
        /// From the file, or added by command.
        backend: BackendName,
        /// The reply channel.
        reply: Reply<()>,
    },
    /// `PATCH` of a backend. Kept in the overlay.
    PatchBackend {
        /// From the file, or added by command.
        backend: BackendName,
        /// Settings that are not given stay.
        body: BackendPatch,
        /// The reply channel: the backend as for [`AddBackend`](Self::AddBackend). `None`: it is no longer in
        /// the file, and the command ended its drain or maint.
        reply: Reply<Option<view::Backend>>,
    },
}

/// Evaluates the same expression for the reply of any request.
macro_rules! with_reply {
    ($request:expr, $reply:ident => $action:expr) => {
        match $request {
            Request::Status($reply) => $action,
            Request::Readiness { reply: $reply, .. } => $action,
            Request::Node($reply) => $action,
            Request::DrainNode { reply: $reply, .. } => $action,
            Request::Group($reply) => $action,
            Request::Services($reply) => $action,
            Request::Backends { reply: $reply, .. } => $action,
            Request::Backend { reply: $reply, .. } => $action,
            Request::Health($reply) => $action,
            Request::Probe { reply: $reply, .. } => $action,
            Request::Roles($reply) => $action,
            Request::Fence { reply: $reply, .. } => $action,
            Request::Unfence { reply: $reply, .. } => $action,
            Request::Force { reply: $reply, .. } => $action,
            Request::Flows { reply: $reply, .. } => $action,
            Request::RemoveFlows { reply: $reply, .. } => $action,
            Request::FlowCount($reply) => $action,
            Request::Stats($reply) => $action,
            Request::Metrics($reply) => $action,
            Request::Reload($reply) => $action,
            Request::Detach($reply) => $action,
            Request::Cluster($reply) => $action,
            Request::ClusterDocument($reply) => $action,
            Request::Push { reply: $reply, .. } => $action,
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

    /// Does it change what the nodes of a cluster have in common?
    pub fn changes_cluster(&self) -> bool {
        matches!(
            self,
            Self::Push { .. }
                | Self::AddBackend { .. }
                | Self::RemoveBackend { .. }
                | Self::PatchBackend { .. }
        )
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
            Self::Readiness { service: None, .. } => f.write_str("readiness"),
            Self::Readiness { service: Some(service), .. } => write!(f, "readiness of {service}"),
            Self::Node(_) => f.write_str("node"),
            Self::DrainNode { is_drained: true, .. } => f.write_str("drain of this node"),
            Self::DrainNode { is_drained: false, .. } => f.write_str("end of the drain of this node"),
            Self::Group(_) => f.write_str("group"),
            Self::Services(_) => f.write_str("services"),
            Self::Backends { service: None, .. } => f.write_str("backends"),
            Self::Backends { service: Some(service), .. } => write!(f, "backends of {service}"),
            Self::Backend { backend, .. } => write!(f, "backend {backend}"),
            Self::Health(_) => f.write_str("health"),
            Self::Probe { backend, .. } => write!(f, "probe of {backend}"),
            Self::Roles(_) => f.write_str("roles"),
            Self::Fence { service, .. } => write!(f, "fence of {service}"),
            Self::Unfence { service, .. } => write!(f, "end of the fence of {service}"),
            Self::Force { backend, .. } => write!(f, "primary {backend}"),
            Self::Flows { .. } => f.write_str("flows"),
            Self::RemoveFlows { .. } => f.write_str("remove flows"),
            Self::FlowCount(_) => f.write_str("flow count"),
            Self::Stats(_) => f.write_str("stats"),
            Self::Metrics(_) => f.write_str("metrics"),
            Self::Reload(_) => f.write_str("reload"),
            Self::Detach(_) => f.write_str("detach"),
            Self::Cluster(_) => f.write_str("cluster"),
            Self::ClusterDocument(_) => f.write_str("services of the cluster"),
            Self::Push { push, .. } => write!(f, "push {}", push.file),
            Self::AddBackend { backend, body, .. } => write!(f, "add backend {backend} at {}", body.address),
            Self::RemoveBackend { backend, .. } => write!(f, "remove backend {backend}"),
            Self::PatchBackend { backend, body, .. } => write!(f, "change backend {backend}: {body}"),
        }
    }
}
