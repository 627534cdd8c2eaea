//! The API client: one method per request.

mod exchange;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::Method;
use serde::de::DeserializeOwned;

use crate::{
    api::problem,
    duration,
    exit::Exit,
    spec::{BackendName, BackendPatch, NewBackend},
    view,
};

use exchange::{LOOK_TIMEOUT, TIMEOUT, escaped};

/// A client of the daemon behind a socket. Each request is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach the daemon at {}: {}", socket.display(), why(reason))]
    Unreachable { socket: PathBuf, reason: io::Error },
    #[error("{question}: no answer from the daemon within {}", duration::show(*limit))]
    TimedOut { question: String, limit: Duration },
    #[error("{}", .0.detail)]
    Refused(view::Problem),
    #[error("{question}: invalid answer from the daemon: {why}")]
    Unreadable { question: String, why: String },
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => Exit::Unreachable,
            Self::Refused(problem) => problem::exit(problem),
            Self::Unreadable { .. } => Exit::Failed,
        }
    }

    /// No process listens on the socket.
    pub fn is_dead(&self) -> bool {
        match self {
            Self::Unreachable { reason, .. } => {
                matches!(reason.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
            }
            Self::TimedOut { .. } | Self::Refused(_) | Self::Unreadable { .. } => false,
        }
    }
}

/// The usual causes of socket errors.
fn why(reason: &io::Error) -> String {
    if reason.kind() == io::ErrorKind::NotFound {
        "no such socket".to_owned()
    } else if reason.kind() == io::ErrorKind::ConnectionRefused {
        "no daemon is listening".to_owned()
    } else if reason.kind() == io::ErrorKind::PermissionDenied {
        "permission denied".to_owned()
    } else {
        reason.to_string()
    }
}

type Answer<T> = Result<T, Error>;

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn status(&self) -> Answer<view::Status> {
        self.get("/v1/status").await
    }

    pub async fn services(&self) -> Answer<Vec<view::Service>> {
        self.get("/v1/services").await
    }

    pub async fn service(&self, name: &str) -> Answer<view::Service> {
        self.get(&format!("/v1/services/{}", escaped(name))).await
    }

    pub async fn all_backends(&self) -> Answer<Vec<view::Backend>> {
        self.get("/v1/backends").await
    }

    pub async fn backends_of(&self, service: &str) -> Answer<Vec<view::Backend>> {
        self.get(&format!("/v1/services/{}/backends", escaped(service))).await
    }

    pub async fn backend(&self, name: &BackendName) -> Answer<view::Backend> {
        self.get(&path_of(name)).await
    }

    pub async fn add(&self, name: &BackendName, backend: &NewBackend) -> Answer<view::Backend> {
        self.send(Method::POST, &path_of(name), backend).await
    }

    /// `None`: no entry is left, because the backend is no longer in the file and the command ended its drain or
    /// maint.
    pub async fn change(&self, name: &BackendName, patch: &BackendPatch) -> Answer<Option<view::Backend>> {
        self.send_optional(Method::PATCH, &path_of(name), patch).await
    }

    pub async fn remove(&self, name: &BackendName) -> Answer<()> {
        self.exchange(TIMEOUT, Method::DELETE, &path_of(name), Vec::new()).await.map(drop)
    }

    pub async fn probe(&self, name: &BackendName) -> Answer<view::ProbeResult> {
        self.send(Method::POST, &format!("{}/probe", path_of(name)), &()).await
    }

    pub async fn health(&self) -> Answer<Vec<view::HealthState>> {
        self.get("/v1/health").await
    }

    pub async fn roles(&self) -> Answer<Vec<view::ServiceRole>> {
        self.get("/v1/roles").await
    }

    pub async fn group(&self) -> Answer<view::Group> {
        self.get("/v1/group").await
    }

    pub async fn cluster(&self) -> Answer<view::Cluster> {
        self.get("/v1/cluster").await
    }

    pub async fn cluster_document(&self) -> Answer<view::ClusterDocument> {
        self.get("/v1/cluster/document").await
    }

    pub async fn push(&self, push: &view::ClusterPush) -> Answer<view::ClusterPushed> {
        self.send(Method::PUT, "/v1/cluster/document", push).await
    }

    pub async fn node(&self) -> Answer<view::Node> {
        self.get("/v1/node").await
    }

    /// False: it may be active again.
    pub async fn drain_node(&self, is_drained: bool) -> Answer<view::Node> {
        let method = if is_drained { Method::POST } else { Method::DELETE };
        self.send(method, "/v1/node/drain", &()).await
    }

    pub async fn fence(&self, service: &str) -> Answer<view::ServiceRole> {
        self.send(Method::POST, &format!("/v1/services/{}/fence", escaped(service)), &()).await
    }

    pub async fn unfence(&self, service: &str) -> Answer<view::ServiceRole> {
        self.send(Method::DELETE, &format!("/v1/services/{}/fence", escaped(service)), &()).await
    }

    pub async fn force(&self, name: &BackendName) -> Answer<view::ServiceRole> {
        self.send(Method::POST, &format!("{}/force", path_of(name)), &()).await
    }

    pub async fn flows(&self, query: &view::FlowQuery) -> Answer<Vec<view::Flow>> {
        self.select_flows(Method::GET, query).await
    }

    pub async fn remove_flows(&self, query: &view::FlowQuery) -> Answer<view::FlowsRemoved> {
        self.select_flows(Method::DELETE, query).await
    }

    async fn select_flows<T: DeserializeOwned>(&self, method: Method, query: &view::FlowQuery) -> Answer<T> {
        let query = serde_urlencoded::to_string(query).map_err(|error| Error::Unreadable {
            question: format!("{method} /v1/flows"),
            why: error.to_string(),
        })?;
        // A walk over large tables takes a while, and may wait for other walks.
        self.ask_within(TIMEOUT, method, &format!("/v1/flows?{query}")).await
    }

    pub async fn flow_count(&self) -> Answer<view::FlowCount> {
        self.get("/v1/flows/count").await
    }

    pub async fn stats(&self) -> Answer<Vec<view::Stats>> {
        self.get("/v1/stats").await
    }

    pub async fn metrics(&self) -> Answer<Vec<u8>> {
        self.exchange(LOOK_TIMEOUT, Method::GET, "/metrics", Vec::new()).await
    }

    pub async fn reload(&self) -> Answer<view::Reloaded> {
        self.send(Method::POST, "/v1/reload", &()).await
    }

    pub async fn detach(&self) -> Answer<()> {
        self.exchange(TIMEOUT, Method::POST, "/v1/detach", Vec::new()).await.map(drop)
    }
}

fn path_of(name: &BackendName) -> String {
    format!("/v1/services/{}/backends/{}", escaped(&name.service), escaped(&name.backend))
}
