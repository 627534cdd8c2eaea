//! The routes: from a path to a request, and from an answer to a response.

use std::fmt::Display;

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{Method, StatusCode, Uri, header},
    response::IntoResponse,
    routing::{MethodFilter, MethodRouter, get, on, post, put},
};
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::{
    api::{handle::ControllerHandle, problem::Refusal},
    event::{ProbeResult, Reply, Request},
    metrics::render,
    problem::{Problem, ProblemKind},
    spec::{BackendName, BackendPatch, NewBackend},
    view,
};

/// Maximum size of a request body.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// The same for the services of a cluster: more than etcd stores, with escapes.
pub const PUSH_LIMIT_BYTES: usize = 8 * 1024 * 1024;
/// Default limit of a list of flows.
pub const FLOWS_LISTED: usize = 1_000;
/// Maximum limit of a list of flows: about 25 MB of JSON.
pub const MAX_FLOWS_LISTED: usize = 100_000;
/// The most reasons that `/readyz` lists.
const MAX_REASONS: usize = 10;
/// Prometheus rejects a response whose format it does not recognise.
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Controller = State<ControllerHandle>;
type Answer<T> = Result<T, Refusal>;

/// Routes on the socket.
pub fn socket(controller: ControllerHandle) -> Router {
    let backend = get(backend).post(add).patch(change).delete(remove);
    let document = asks(MethodFilter::GET, Request::ClusterDocument)
        .merge(put(push).layer(DefaultBodyLimit::max(PUSH_LIMIT_BYTES)));
    let all_backends = asks(MethodFilter::GET, |reply| Request::Backends { service: None, reply });
    let routes = Router::new()
        .route("/v1/status", asks(MethodFilter::GET, Request::Status))
        .route("/v1/node", asks(MethodFilter::GET, Request::Node))
        .route("/v1/node/drain", post(drain_node).delete(undrain_node))
        .route("/v1/group", asks(MethodFilter::GET, Request::Group))
        .route("/v1/cluster", asks(MethodFilter::GET, Request::Cluster))
        .route("/v1/cluster/document", document)
        .route("/v1/services", asks(MethodFilter::GET, Request::Services))
        .route("/v1/services/{service}", get(service))
        .route("/v1/services/{service}/fence", post(fence).delete(unfence))
        .route("/v1/services/{service}/backends", get(backends))
        .route("/v1/services/{service}/backends/{backend}", backend)
        .route("/v1/services/{service}/backends/{backend}/probe", post(probe))
        .route("/v1/services/{service}/backends/{backend}/force", post(force))
        .route("/v1/backends", all_backends)
        .route("/v1/roles", asks(MethodFilter::GET, Request::Roles))
        .route("/v1/health", asks(MethodFilter::GET, Request::Health))
        .route("/v1/flows", get(flows).delete(remove_flows))
        .route("/v1/flows/count", asks(MethodFilter::GET, Request::FlowCount))
        .route("/v1/stats", asks(MethodFilter::GET, Request::Stats))
        .route("/v1/reload", asks(MethodFilter::POST, Request::Reload))
        .route("/v1/detach", post(detach));
    finish(routes.merge(observation()), controller)
}

/// Routes on the metrics listener, which are read-only.
pub fn metrics(controller: ControllerHandle) -> Router {
    finish(observation(), controller)
}

fn observation() -> Router<ControllerHandle> {
    Router::new()
        .route("/metrics", get(exposition))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/readyz/{service}", get(service_readyz))
}

fn finish(routes: Router<ControllerHandle>, controller: ControllerHandle) -> Router {
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .with_state(controller)
}

/// A route that always sends the same request, and returns its answer unchanged.
fn asks<T: Serialize + Send + 'static>(
    method: MethodFilter,
    request: fn(Reply<T>) -> Request,
) -> MethodRouter<ControllerHandle> {
    on(method, move |State(controller): Controller| async move { controller.ask(request).await.map(Json) })
}

async fn service(State(controller): Controller, Path(name): Path<String>) -> Answer<Json<view::Service>> {
    let services = controller.ask(Request::Services).await?;
    let service = services.into_iter().find(|service| service.name == name);
    service.map(Json).ok_or_else(|| Refusal::not_found(format!("there is no service `{name}`")))
}

async fn backends(
    State(controller): Controller,
    Path(service): Path<String>,
) -> Answer<Json<Vec<view::Backend>>> {
    controller.ask(|reply| Request::Backends { service: Some(service), reply }).await.map(Json)
}

async fn backend(
    State(controller): Controller,
    Path(backend): Path<BackendName>,
) -> Answer<Json<view::Backend>> {
    controller.ask(|reply| Request::Backend { backend, reply }).await.map(Json)
}

async fn add(
    State(controller): Controller,
    Path(backend): Path<BackendName>,
    body: Result<Json<NewBackend>, JsonRejection>,
) -> Answer<(StatusCode, Json<view::Backend>)> {
    let Json(body) = body?;
    let added = controller.ask(|reply| Request::AddBackend { backend, body, reply }).await?;
    Ok((StatusCode::CREATED, Json(added)))
}

/// 204 if the backend is no longer in the file, and this request ended a drain or maint that was still stored for it.
async fn change(
    State(controller): Controller,
    Path(backend): Path<BackendName>,
    body: Result<Json<BackendPatch>, JsonRejection>,
) -> Answer<Result<Json<view::Backend>, StatusCode>> {
    let Json(body) = body?;
    if body == BackendPatch::default() {
        return Err(Refusal::invalid("nothing to change: set admin_state, weight or backup"));
    }
    let changed = controller.ask(|reply| Request::PatchBackend { backend, body, reply }).await?;
    Ok(changed.map(Json).ok_or(StatusCode::NO_CONTENT))
}

async fn remove(State(controller): Controller, Path(backend): Path<BackendName>) -> Answer<StatusCode> {
    controller.ask(|reply| Request::RemoveBackend { backend, reply }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn probe(
    State(controller): Controller,
    Path(backend): Path<BackendName>,
) -> Answer<Json<view::ProbeResult>> {
    let result: ProbeResult = controller.probe(backend).await?;
    Ok(Json(view::ProbeResult::from(&result)))
}

async fn drain_node(State(controller): Controller) -> Answer<Json<view::Node>> {
    controller.ask(|reply| Request::DrainNode { is_drained: true, reply }).await.map(Json)
}

async fn undrain_node(State(controller): Controller) -> Answer<Json<view::Node>> {
    controller.ask(|reply| Request::DrainNode { is_drained: false, reply }).await.map(Json)
}

async fn push(
    State(controller): Controller,
    body: Result<Json<view::ClusterPush>, JsonRejection>,
) -> Answer<Json<view::ClusterPushed>> {
    let Json(push) = body?;
    controller.ask(|reply| Request::Push { push, reply }).await.map(Json)
}

async fn fence(
    State(controller): Controller,
    Path(service): Path<String>,
) -> Answer<Json<view::ServiceRole>> {
    controller.ask(|reply| Request::Fence { service, reply }).await.map(Json)
}

async fn unfence(
    State(controller): Controller,
    Path(service): Path<String>,
) -> Answer<Json<view::ServiceRole>> {
    controller.ask(|reply| Request::Unfence { service, reply }).await.map(Json)
}

async fn force(
    State(controller): Controller,
    Path(backend): Path<BackendName>,
) -> Answer<Json<view::ServiceRole>> {
    controller.ask(|reply| Request::Force { backend, reply }).await.map(Json)
}

async fn flows(
    State(controller): Controller,
    query: Result<Query<view::FlowQuery>, QueryRejection>,
) -> Answer<Json<Vec<view::Flow>>> {
    let Query(mut query) = query?;
    let limit = query.limit.unwrap_or(FLOWS_LISTED);
    if limit > MAX_FLOWS_LISTED {
        return Err(Refusal::invalid(format!(
            "limit {limit} is too high: at most {MAX_FLOWS_LISTED} flows can be listed at once"
        )));
    }
    query.limit = Some(limit);
    controller.ask(|reply| Request::Flows { query, reply }).await.map(Json)
}

async fn remove_flows(
    State(controller): Controller,
    query: Result<Query<view::FlowQuery>, QueryRejection>,
) -> Answer<Json<view::FlowsRemoved>> {
    let Query(query) = query?;
    if query.has_filter() == query.all {
        return Err(Refusal::invalid(
            "which flows? give service, backend or client, or all=true for all flows",
        ));
    }
    controller.ask(|reply| Request::RemoveFlows { query, reply }).await.map(Json)
}

async fn detach(State(controller): Controller) -> Answer<StatusCode> {
    controller.ask(Request::Detach).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn exposition(State(controller): Controller) -> Answer<impl IntoResponse> {
    let input = controller.ask(Request::Metrics).await?;
    let text = spawn_blocking(move || render(&input)).await.map_err(|error| failed(&error))?;
    let text = text.map_err(|error| failed(&error))?;
    Ok(([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text))
}

fn failed(error: &dyn Display) -> Refusal {
    Problem::new(ProblemKind::Failed, format!("render the metrics: {error}")).into()
}

/// The process serves requests. `/readyz` shows whether the controller answers.
async fn livez() -> &'static str {
    "ok\n"
}

/// The controller answers, all services are ready, and the data plane is up to date.
async fn readyz(State(controller): Controller) -> Answer<&'static str> {
    judge(&controller.ask(|reply| Request::Readiness { service: None, reply }).await?)
}

/// The same for one service.
async fn service_readyz(State(controller): Controller, Path(service): Path<String>) -> Answer<&'static str> {
    judge(&controller.ask(|reply| Request::Readiness { service: Some(service), reply }).await?)
}

fn judge(reasons: &[String]) -> Answer<&'static str> {
    if reasons.is_empty() {
        return Ok("ok\n");
    }
    let mut detail = reasons.iter().take(MAX_REASONS).cloned().collect::<Vec<_>>().join("; ");
    if let Some(more) = reasons.len().checked_sub(MAX_REASONS).filter(|more| *more > 0) {
        detail += &format!("; and {more} more");
    }
    Err(Refusal::http(StatusCode::SERVICE_UNAVAILABLE, detail))
}

async fn no_route(uri: Uri) -> Refusal {
    Refusal::http(StatusCode::NOT_FOUND, format!("this API has no path {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Refusal {
    Refusal::http(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed for {}", uri.path()))
}
