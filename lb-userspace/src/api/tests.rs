//! The API in process: a real socket in a temporary directory, and a scripted controller.

mod http;

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    time::Instant,
};

use super::{
    client::{self, Client},
    handle::{ANSWER_TIMEOUT, ControllerHandle},
    listen::{self, Error},
    problem, server,
};
use crate::{
    event::{Event, Request},
    exit::Exit,
    fake::{self, Balancer, Daemon},
    metrics,
    problem::{Problem, ProblemKind},
    view::FlowQuery,
};
use http::{HttpReply, exchange, get, http, patch, post};

#[tokio::test]
async fn each_route_answers_with_what_the_controller_knows() {
    let known = Balancer::new();
    let backends = |service| json!(known.backends(service).unwrap());
    let one = "/v1/services/web/backends/web-1";
    let web_1 = || backends(None)[0].clone();
    let query = FlowQuery { backend: Some("web/web-2".to_owned()), limit: Some(5), ..FlowQuery::default() };
    let with = |mut value: Value, changes: &[(&str, Value)]| {
        changes.iter().for_each(|(key, change)| value[key] = change.clone());
        value
    };
    let drained = [("admin_state", json!("drain")), ("effective_weight", json!(0))];
    let added = [
        ("name", json!("web-4")),
        ("address", json!("10.0.0.14:80")),
        ("weight", json!(7)),
        ("effective_weight", json!(0)),
        ("health", json!("unknown")),
        ("flows", json!(0)),
    ];
    let reloaded = json!({
        "changes": ["web/web-4: added"],
        "warnings": ["service web uses the source 10.0.0.1, which is not an address of this host: \
                      ip address add 10.0.0.1/32 dev eth1"],
    });
    let probed = json!({"result": "success", "detail": "connected", "duration_seconds": 0.0015});

    let cases: Vec<(String, u16, Value)> = vec![
        (get("/v1/status"), 200, json!(known.status())),
        (get("/v1/services"), 200, json!(known.services())),
        (get("/v1/services/dns"), 200, json!(known.services()[1])),
        (get("/v1/services/dns/backends"), 200, backends(Some("dns"))),
        (get(one), 200, web_1()),
        (get("/v1/backends"), 200, backends(None)),
        (get("/v1/health"), 200, json!(known.health())),
        (get("/v1/flows?backend=web%2Fweb-2&limit=5"), 200, json!(known.flows(&query).unwrap())),
        (http("DELETE", "/v1/flows?backend=web%2Fweb-2", ""), 200, json!({"removed": 1})),
        (http("DELETE", "/v1/flows?all=true&limit=9", ""), 200, json!({"removed": 2})),
        (get("/v1/flows/count"), 200, json!(known.flow_count())),
        (get("/v1/stats"), 200, json!(known.stats())),
        (post("/v1/reload", ""), 200, reloaded),
        (post("/v1/detach", ""), 204, Value::Null),
        (
            post("/v1/services/web/backends/web-4", r#"{"address": "10.0.0.14:80", "weight": 7}"#),
            201,
            with(web_1(), &added),
        ),
        (patch(one, r#"{"admin_state": "drain"}"#), 200, with(web_1(), &drained)),
        (patch("/v1/services/web/backends/web-gone", r#"{"admin_state": "ready"}"#), 204, Value::Null),
        (http("DELETE", one, ""), 204, Value::Null),
        (post(&format!("{one}/probe"), ""), 200, probed),
    ];
    for (request, code, shown) in cases {
        let daemon = Daemon::start(balancer()).await;

        let reply = exchange(&daemon, &request).await;

        assert_eq!((reply.code, reply.json()), (code, shown), "{request}");
    }
}

#[tokio::test]
async fn a_list_of_flows_is_filtered_as_the_query_says() {
    let daemon = Daemon::start(|request| {
        let Request::Flows { query, reply } = request else { panic!("a list of flows is requested") };
        let expected = FlowQuery {
            service: Some("web".into()),
            client: Some("192.0.2.0/24".into()),
            limit: Some(5),
            ..FlowQuery::default()
        };
        assert_eq!(query, expected);
        reply.send(Ok(vec![]));
    })
    .await;

    let reply = exchange(&daemon, &get("/v1/flows?service=web&client=192.0.2.0%2F24&limit=5")).await;

    assert_eq!((reply.code, reply.json()), (200, json!([])));
}

#[tokio::test]
async fn an_unknown_service_is_not_found() {
    let daemon = Daemon::start(balancer()).await;

    let absent = exchange(&daemon, &get("/v1/services/mail")).await;

    assert_eq!((absent.code, absent.json()["detail"].clone()), (404, json!("there is no service `mail`")));
}

#[tokio::test]
async fn each_kind_of_problem_is_a_document_with_its_status() {
    for kind in problem::KINDS {
        let daemon = Daemon::start(refuses(kind)).await;

        let reply = exchange(&daemon, &post("/v1/reload", "")).await;

        let row = problem::row(kind);
        assert_eq!(reply.code, row.status.as_u16());
        assert_eq!(reply.header("content-type"), Some(problem::CONTENT_TYPE));
        let shown = json!({"type": row.uri, "title": row.title, "status": row.status.as_u16(), "detail": "why", "errors": ["a:1:1: b"]});
        assert_eq!(reply.json(), shown);
    }
}

#[tokio::test]
async fn a_request_that_makes_no_sense_never_reaches_the_controller() {
    let daemon = Daemon::start(|request| panic!("{request}")).await;
    let one = "/v1/services/web/backends/web-1";
    let large = format!(r#"{{"address": "{}"}}"#, "1".repeat(70_000));
    let cases = [
        (patch(one, "{}"), 400, "nothing to change"),
        (patch(one, "{"), 400, "EOF"),
        (patch(one, r#"{"weigth": 1}"#), 400, "unknown field `weigth`"),
        (patch(one, r#"{"weight": -1}"#), 400, "weight: invalid value"),
        (patch(one, r#"{"admin_state": "gone"}"#), 400, "unknown variant `gone`"),
        (post(one, r#"{"address": "10.0.0.300:1"}"#), 400, "address: invalid socket address"),
        (post(one, &large), 413, "length limit exceeded"),
        (http("POST", one, "{}").replace("application/json", "text/plain"), 415, "application/json"),
        (get("/v1/flows?limit=many"), 400, "limit: invalid digit"),
        (get("/v1/flows?colour=red"), 400, "unknown field `colour`"),
        (get("/v1/flows?limit=100001"), 400, "at most 100000 flows"),
        (http("DELETE", "/v1/flows", ""), 400, "which flows?"),
        (http("DELETE", "/v1/flows?limit=5", ""), 400, "which flows?"),
        (http("DELETE", "/v1/flows?all=true&service=web", ""), 400, "which flows?"),
        (http("DELETE", "/v1/flows?colour=red", ""), 400, "unknown field `colour`"),
        (get("/v1/explain"), 404, "this API has no path /v1/explain"),
        (post("/v1/status", ""), 405, "POST is not allowed for /v1/status"),
        (get("/v1/reload"), 405, "GET is not allowed for /v1/reload"),
    ];

    for (request, code, detail) in cases {
        let reply = exchange(&daemon, &request).await;

        let shown = reply.json();
        assert_eq!((reply.code, shown["status"].clone()), (code, json!(code)), "{shown}");
        assert_eq!(reply.header("content-type"), Some(problem::CONTENT_TYPE));
        assert!(shown["detail"].as_str().unwrap().contains(detail), "{shown}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_answered_with_the_allowed_ones() {
    let daemon = Daemon::start(|request| panic!("{request}")).await;

    let reply = exchange(&daemon, &http("DELETE", "/v1/status", "")).await;

    assert_eq!(reply.header("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn the_response_to_prometheus_has_the_format_version() {
    let daemon = Daemon::start(balancer()).await;

    let reply = exchange(&daemon, &get("/metrics")).await;

    assert_eq!((reply.code, reply.body.clone()), (200, metrics::render(&Balancer::metrics()).unwrap()));
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[tokio::test]
async fn the_listener_of_prometheus_serves_metrics_and_nothing_else() {
    let (controller, _task) = fake::controller(balancer());
    let pending = listen::Pending::bind("127.0.0.1:0".parse().unwrap(), listen::Part::Metrics, None).unwrap();
    let address = pending.address().unwrap();
    let listener = pending.listener().await;
    tokio::spawn(server::serve_metrics(listener, controller, std::future::pending()));

    for (path, code) in [("/metrics", 200), ("/livez", 200), ("/v1/status", 404), ("/v1/detach", 404)] {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();

        assert_eq!(HttpReply::of(stream, &get(path)).await.code, code, "{path}");
    }
    let detach = tokio::net::TcpStream::connect(address).await.unwrap();
    assert_eq!(HttpReply::of(detach, &post("/v1/detach", "")).await.code, 404);
}

#[tokio::test]
async fn a_node_is_ready_if_its_controller_has_no_reason_against_it() {
    let reasons = |count: u32| (1..=count).map(|n| format!("reason {n}")).collect::<Vec<_>>();
    for (count, code, detail) in [
        (0, 200, None),
        (2, 503, Some("reason 1; reason 2".to_owned())),
        (10, 503, Some(reasons(10).join("; "))),
        (12, 503, Some(format!("{}; and 2 more", reasons(10).join("; ")))),
    ] {
        let daemon = Daemon::start(move |request| {
            let Request::Readiness { reply, .. } = request else { panic!("the readiness is requested") };
            reply.send(Ok(reasons(count)));
        })
        .await;

        let reply = exchange(&daemon, &get("/readyz")).await;

        assert_eq!(reply.code, code);
        assert_eq!(exchange(&daemon, &get("/livez")).await.code, 200);
        if let Some(detail) = detail {
            assert_eq!(reply.json()["detail"], json!(detail));
        }
    }
}

#[tokio::test]
async fn a_controller_that_has_ended_is_reported_at_once() {
    let (events, _) = mpsc::channel(1);
    let daemon = Daemon::of(ControllerHandle::new(events, fake::probe)).await;

    let reply = exchange(&daemon, &get("/v1/status")).await;

    assert_eq!((reply.code, reply.json()["detail"].clone()), (503, json!("the daemon is stopping")));
}

#[tokio::test(start_paused = true)]
async fn a_silent_controller_is_reported_after_the_timeout() {
    let (events, _never_read) = mpsc::channel(1);
    let controller = ControllerHandle::new(events, fake::probe);
    let begin = Instant::now();

    let refusal = controller.ask(Request::Status).await.unwrap_err();

    assert!(format!("{refusal:?}").contains("504"));
    assert!(begin.elapsed() >= ANSWER_TIMEOUT && begin.elapsed() < ANSWER_TIMEOUT * 2);
}

#[tokio::test(start_paused = true)]
async fn idle_clients_make_way_for_one_that_sends() {
    let daemon = Daemon::start(balancer()).await;
    let mut idle = Vec::new();
    for _ in 0..server::MAX_CONNECTIONS {
        idle.push(UnixStream::connect(daemon.socket()).await.unwrap());
    }

    let reply = exchange(&daemon, &get("/v1/stats")).await;

    assert_eq!(reply.code, 200);
    assert_eq!(idle[0].read(&mut [0; 256]).await.unwrap_or(0), 0, "the first idle client was hung up on");
}

#[tokio::test]
async fn answers_under_way_are_finished_when_the_daemon_stops() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (controller, mut events) = fake::inbox();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.sock");
    let socket = listen::socket(&path).await.unwrap();
    let serving = tokio::spawn(server::serve_socket(socket, controller, async { drop(stopped.await) }));
    let asking = tokio::spawn({
        let path = path.clone();
        async move { Client::new(path).detach().await }
    });

    let Event::Request(Request::Detach(reply)) = events.recv().await.unwrap() else { panic!() };
    stop.send(()).unwrap();
    tokio::task::yield_now().await;
    reply.send(Ok(()));

    asking.await.unwrap().unwrap();
    serving.await.unwrap();
    assert!(!path.exists(), "the socket's file goes with the daemon");
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_group_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/xlb.sock");

    let _socket = listen::socket(&path).await.unwrap();

    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(files_in(path.parent().unwrap()), ["xlb.sock"]);
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_a_conflict() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let live = listen::socket(&path).await.unwrap();

    let error = listen::socket(&path).await.unwrap_err();

    assert!(matches!(error, Error::Live(_)) && error.exit() == Exit::Conflict);
    assert!(UnixStream::connect(&path).await.is_ok(), "the live one was not disturbed");
    drop(live);
    assert!(listen::socket(&path).await.is_ok());
}

#[tokio::test]
async fn what_is_not_a_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.toml");
    std::fs::write(&path, "version = 1").unwrap();

    let error = listen::socket(&path).await.unwrap_err();

    assert!(matches!(error, Error::NotASocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "version = 1");
}

#[tokio::test]
async fn a_socket_that_another_daemon_put_there_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.sock");
    let ours = listen::socket(&path).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let _theirs = listen::socket(&path).await.unwrap();

    drop(ours);

    assert!(UnixStream::connect(&path).await.is_ok());
}

#[tokio::test]
async fn an_address_in_use_is_reported_in_one_line() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();

    for (part, named) in [(listen::Part::Group, "[group]"), (listen::Part::Metrics, "[metrics]")] {
        let error = listen::Pending::bind(address, part, None).unwrap_err();

        let expected = format!(
            "cannot listen on {address}: address in use (`ss -ltnp` shows the process; `listen` in {named} changes the address)"
        );
        assert_eq!((error.to_string(), error.exit()), (expected, Exit::Conflict));
    }
}

#[tokio::test]
async fn the_client_distinguishes_a_dead_daemon_from_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let dead = Client::new(directory.path().join("xlb.sock")).status().await.unwrap_err();
    assert!(dead.is_dead() && dead.exit() == Exit::Unreachable, "{dead}");

    let daemon = Daemon::start(refuses(ProblemKind::Conflict)).await;
    let refused = Client::new(daemon.socket()).status().await.unwrap_err();
    assert!(!refused.is_dead() && refused.exit() == Exit::Conflict, "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_not_reported_as_a_dead_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("xlb.toml");
    std::fs::write(&file, "version = 1").unwrap();

    for path in [file.as_path(), directory.path()] {
        let error = Client::new(path).status().await.unwrap_err();

        assert!(error.to_string().ends_with(": not a socket"), "{error}");
        assert!(!error.is_dead() && error.exit() == Exit::Unreachable);
    }
}

#[tokio::test]
async fn a_daemon_that_closes_the_connection_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _head = stream.read(&mut [0; 1024]).await;
    });

    let error = Client::new(&path).status().await.unwrap_err();

    assert_eq!(error.exit(), Exit::Unreachable, "{error}");
    assert!(!error.is_dead(), "it may still live");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_daemon_does_not_block_read_only_commands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.sock");
    let _never_accepts = tokio::net::UnixListener::bind(&path).unwrap();
    let begin = Instant::now();

    let error = Client::new(&path).status().await.unwrap_err();

    assert!(begin.elapsed() < Duration::from_secs(10), "a monitoring plugin is ended by then");
    assert_eq!(error.to_string(), "GET /v1/status: no answer from the daemon within 5s");
    assert_eq!(error.exit(), Exit::Unreachable);
}

#[tokio::test]
async fn the_client_says_what_it_could_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _head = stream.read(&mut [0; 1024]).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").await.unwrap();
    });

    let error = Client::new(&path).status().await.unwrap_err();

    assert!(matches!(error, client::Error::Unreadable { .. }), "{error}");
    assert!(error.to_string().starts_with("GET /v1/status: invalid answer from the daemon"), "{error}");
}

fn balancer() -> impl FnMut(Request) {
    let mut balancer = Balancer::new();
    move |request| balancer.answer(request)
}

fn refuses(kind: ProblemKind) -> impl FnMut(Request) {
    move |request| {
        request.refuse(Problem { kind, detail: "why".to_owned(), mistakes: vec!["a:1:1: b".to_owned()] });
    }
}

fn files_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
