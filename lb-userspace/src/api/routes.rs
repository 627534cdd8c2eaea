//! The routes: from a path to a question, from an answer to a response. Each handler is one sentence.

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, get, on, post},
};

use crate::{
    api::{
        desk::{Desk, unfit},
        problem::Refusal,
    },
    event::{Answer, Request},
    spec::{BackendName, BackendPatch, NewBackend},
    view,
};

/// The largest body of a request.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// Flows in a list whose length nobody gave.
pub const FLOWS_LISTED: usize = 1_000;
/// Flows in the longest list: about 25 MB of JSON.
pub const MAX_FLOWS_LISTED: usize = 100_000;
/// Prometheus refuses a text format that it cannot tell apart.
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Reply = Result<Response, Refusal>;

/// What the socket serves.
pub fn socket(desk: Desk) -> Router {
    let backend = get(backend).post(add).patch(change).delete(remove);
    let routes = Router::new()
        .route("/v1/status", asks(MethodFilter::GET, Request::Status))
        .route("/v1/services", asks(MethodFilter::GET, Request::Services))
        .route("/v1/services/{service}", get(service))
        .route("/v1/services/{service}/backends", get(backends))
        .route("/v1/services/{service}/backends/{backend}", backend)
        .route("/v1/services/{service}/backends/{backend}/probe", post(probe))
        .route("/v1/backends", asks(MethodFilter::GET, Request::Backends { service: None }))
        .route("/v1/health", asks(MethodFilter::GET, Request::Health))
        .route("/v1/flows", get(flows))
        .route("/v1/flows/count", asks(MethodFilter::GET, Request::FlowCount))
        .route("/v1/stats", asks(MethodFilter::GET, Request::Stats))
        .route("/v1/reload", asks(MethodFilter::POST, Request::Reload))
        .route("/v1/detach", asks(MethodFilter::POST, Request::Detach));
    finish(routes.merge(observation()), desk)
}

/// What Prometheus is served: it can read, and nothing else.
pub fn metrics(desk: Desk) -> Router {
    finish(observation(), desk)
}

fn observation() -> Router<Desk> {
    Router::new()
        .route("/metrics", asks(MethodFilter::GET, Request::Metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
}

fn finish(routes: Router<Desk>, desk: Desk) -> Router {
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .with_state(desk)
}

/// A route that asks one fixed question.
fn asks(method: MethodFilter, question: Request) -> MethodRouter<Desk> {
    on(method, move |State(desk): State<Desk>| async move { desk.ask(question).await })
}

async fn service(State(desk): State<Desk>, Path(name): Path<String>) -> Reply {
    let Answer::Services(services) = desk.ask(Request::Services).await? else {
        return Err(unfit());
    };

    match services.into_iter().find(|service| service.name == name) {
        Some(service) => Ok(Json(service).into_response()),
        None => Err(Refusal::not_found(format!("there is no service `{name}`"))),
    }
}

async fn backends(State(desk): State<Desk>, Path(service): Path<String>) -> Reply {
    Ok(desk.ask(Request::Backends { service: Some(service) }).await?.into_response())
}

async fn backend(State(desk): State<Desk>, Path((service, name)): Path<(String, String)>) -> Reply {
    let backend = BackendName { service, backend: name };
    Ok(desk.ask(Request::Backend { backend }).await?.into_response())
}

async fn add(
    State(desk): State<Desk>,
    Path((service, backend)): Path<(String, String)>,
    body: Result<Json<NewBackend>, JsonRejection>,
) -> Reply {
    let Json(body) = body?;
    let backend = BackendName { service, backend };
    let added = desk.ask(Request::AddBackend { backend, body }).await?;
    Ok((StatusCode::CREATED, added).into_response())
}

async fn change(
    State(desk): State<Desk>,
    Path((service, backend)): Path<(String, String)>,
    body: Result<Json<BackendPatch>, JsonRejection>,
) -> Reply {
    let Json(body) = body?;
    if body == BackendPatch::default() {
        return Err(Refusal::invalid("nothing to change: give admin_state, weight or backup"));
    }
    let backend = BackendName { service, backend };
    Ok(desk.ask(Request::PatchBackend { backend, body }).await?.into_response())
}

async fn remove(State(desk): State<Desk>, Path((service, backend)): Path<(String, String)>) -> Reply {
    let backend = BackendName { service, backend };
    Ok(desk.ask(Request::RemoveBackend { backend }).await?.into_response())
}

async fn probe(State(desk): State<Desk>, Path((service, backend)): Path<(String, String)>) -> Reply {
    Ok(Json(desk.probe(BackendName { service, backend }).await?).into_response())
}

async fn flows(State(desk): State<Desk>, query: Result<Query<view::FlowQuery>, QueryRejection>) -> Reply {
    let Query(mut query) = query?;
    let limit = query.limit.unwrap_or(FLOWS_LISTED);
    if limit > MAX_FLOWS_LISTED {
        return Err(Refusal::invalid(format!(
            "limit={limit}: at most {MAX_FLOWS_LISTED} flows are listed at once"
        )));
    }
    query.limit = Some(limit);
    Ok(desk.ask(Request::Flows(query)).await?.into_response())
}

/// The process serves. That the controller answers is `/readyz`'s to say.
async fn livez() -> &'static str {
    "ok\n"
}

/// The controller answers, and the program is attached everywhere.
async fn readyz(State(desk): State<Desk>) -> Reply {
    let Answer::Status(status) = desk.ask(Request::Status).await? else {
        return Err(unfit());
    };

    match status.interfaces.iter().find(|interface| !interface.attached) {
        None => Ok("ok\n".into_response()),
        Some(interface) => Err(Refusal::http(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the program is not attached to {}", interface.name),
        )),
    }
}

async fn no_route(uri: Uri) -> Refusal {
    Refusal::http(StatusCode::NOT_FOUND, format!("{} is not a path of this API", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Refusal {
    Refusal::http(StatusCode::METHOD_NOT_ALLOWED, format!("{method} makes no sense for {}", uri.path()))
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Status(status) => Json(status).into_response(),
            Self::Services(services) => Json(services).into_response(),
            Self::Backends(backends) => Json(backends).into_response(),
            Self::Backend(backend) => Json(backend).into_response(),
            Self::Health(states) => Json(states).into_response(),
            Self::Flows(flows) => Json(flows).into_response(),
            Self::FlowCount(count) => Json(count).into_response(),
            Self::Stats(stats) => Json(stats).into_response(),
            Self::Reload(reloaded) => Json(reloaded).into_response(),
            Self::Metrics(text) => ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
            Self::Done => StatusCode::NO_CONTENT.into_response(),
            // The desk keeps targets to itself: no question of a route is answered so.
            Self::Probe(_) => unfit().into_response(),
        }
    }
}
