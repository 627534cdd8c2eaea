//! The API in process: a real socket in a temporary directory, and a controller that says what it is told to.

mod fake;

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
    desk::{ANSWER_TIMEOUT, Desk},
    listen::{self, Error},
    problem, server,
};
use crate::{
    event::{Answer, Request},
    exit::Exit,
    spec::{AdminState, BackendName, BackendPatch, NewBackend},
    view,
};
use fake::{Daemon, HttpReply, backend, get, http, patch, post, probed, refuses, says, status};

#[tokio::test]
async fn each_route_asks_its_question_and_shows_the_answer() {
    let web = || BackendName::new("web", "web-1");
    let drain = BackendPatch { admin_state: Some(AdminState::Drain), ..Default::default() };
    let added = NewBackend { address: "10.0.0.11:8080".parse().unwrap(), weight: 100, backup: false };
    let count = view::FlowCount { established: 3, ..Default::default() };
    let query = view::FlowQuery {
        service: Some("web".into()),
        client: Some("192.0.2.0/24".into()),
        limit: Some(5),
        ..Default::default()
    };
    let reloaded = view::Reloaded { changes: vec!["web/web-4: added".into()], warnings: vec![] };
    let of_web = Request::Backends { service: Some("web".into()) };
    let one = "/v1/services/web/backends/web-1";

    let cases: Vec<(String, Request, Answer, u16, Value)> = vec![
        (get("/v1/status"), Request::Status, Answer::Status(status()), 200, json!(status())),
        (get("/v1/services"), Request::Services, Answer::Services(vec![]), 200, json!([])),
        (
            get("/v1/services/web/backends"),
            of_web,
            Answer::Backends(vec![backend()]),
            200,
            json!([backend()]),
        ),
        (get(one), Request::Backend { backend: web() }, Answer::Backend(backend()), 200, json!(backend())),
        (
            get("/v1/backends"),
            Request::Backends { service: None },
            Answer::Backends(vec![backend()]),
            200,
            json!([backend()]),
        ),
        (get("/v1/health"), Request::Health, Answer::Health(vec![]), 200, json!([])),
        (
            get("/v1/flows?service=web&client=192.0.2.0%2F24&limit=5"),
            Request::Flows(query),
            Answer::Flows(vec![]),
            200,
            json!([]),
        ),
        (get("/v1/flows/count"), Request::FlowCount, Answer::FlowCount(count.clone()), 200, json!(count)),
        (get("/v1/stats"), Request::Stats, Answer::Stats(vec![]), 200, json!([])),
        (post("/v1/reload", ""), Request::Reload, Answer::Reload(reloaded.clone()), 200, json!(reloaded)),
        (post("/v1/detach", ""), Request::Detach, Answer::Done, 204, Value::Null),
        (
            post(one, r#"{"address": "10.0.0.11:8080"}"#),
            Request::AddBackend { backend: web(), body: added },
            Answer::Backend(backend()),
            201,
            json!(backend()),
        ),
        (
            patch(one, r#"{"admin_state": "drain"}"#),
            Request::PatchBackend { backend: web(), body: drain },
            Answer::Backend(backend()),
            200,
            json!(backend()),
        ),
        (http("DELETE", one, ""), Request::RemoveBackend { backend: web() }, Answer::Done, 204, Value::Null),
    ];

    for (request, question, answer, code, shown) in cases {
        let daemon = Daemon::start(says(question, answer)).await;

        let reply = daemon.exchange(&request).await;

        assert_eq!((reply.code, reply.json()), (code, shown), "{request}");
    }
}

#[tokio::test]
async fn a_service_is_found_by_its_name() {
    let daemon = Daemon::start(|_| Ok(Answer::Services(vec![fake::service()]))).await;

    assert_eq!(daemon.exchange(&get("/v1/services/web")).await.json(), json!(fake::service()));

    let absent = daemon.exchange(&get("/v1/services/dns")).await;
    assert_eq!((absent.code, absent.json()["detail"].clone()), (404, json!("there is no service `dns`")));
}

#[tokio::test]
async fn the_api_probes_where_the_controller_says() {
    let daemon = Daemon::start(|_| Ok(Answer::Probe(fake::target()))).await;

    let reply = daemon.exchange(&post("/v1/services/web/backends/web-1/probe", "")).await;

    assert_eq!(reply.json(), json!(probed()));
}

#[tokio::test]
async fn each_kind_of_problem_is_a_document_with_its_status() {
    for kind in problem::KINDS {
        let daemon = Daemon::start(refuses(kind, "why")).await;

        let reply = daemon.exchange(&post("/v1/reload", "")).await;

        let row = problem::row(kind);
        assert_eq!(reply.code, row.status.as_u16());
        assert_eq!(reply.header("content-type"), Some(problem::CONTENT_TYPE));
        let shown = json!({"type": row.uri, "title": row.title, "status": row.status.as_u16(), "detail": "why", "errors": ["a:1:1: b"]});
        assert_eq!(reply.json(), shown);
    }
}

#[tokio::test]
async fn a_request_that_makes_no_sense_never_reaches_the_controller() {
    let daemon = Daemon::start(|request| panic!("{request:?}")).await;
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
        (get("/v1/explain"), 404, "/v1/explain is not a path of this API"),
        (post("/v1/status", ""), 405, "POST makes no sense for /v1/status"),
        (get("/v1/reload"), 405, "GET makes no sense for /v1/reload"),
    ];

    for (request, code, detail) in cases {
        let reply = daemon.exchange(&request).await;

        let shown = reply.json();
        assert_eq!((reply.code, shown["status"].clone()), (code, json!(code)), "{shown}");
        assert_eq!(reply.header("content-type"), Some(problem::CONTENT_TYPE));
        assert!(shown["detail"].as_str().unwrap().contains(detail), "{shown}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let daemon = Daemon::start(|request| panic!("{request:?}")).await;

    let reply = daemon.exchange(&http("DELETE", "/v1/status", "")).await;

    assert_eq!(reply.header("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn prometheus_is_told_the_version_of_the_format() {
    let daemon = Daemon::start(|_| Ok(Answer::Metrics("xlb_build_info 1\n".into()))).await;

    let reply = daemon.exchange(&get("/metrics")).await;

    assert_eq!((reply.code, reply.body.as_str()), (200, "xlb_build_info 1\n"));
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[tokio::test]
async fn the_listener_of_prometheus_serves_metrics_and_nothing_else() {
    let (desk, _controller) = fake::desk(|_| Ok(Answer::Metrics("xlb_build_info 1\n".into())));
    let listener = listen::metrics("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve_metrics(listener, desk, std::future::pending()));

    for (path, code) in [("/metrics", 200), ("/livez", 200), ("/v1/status", 404), ("/v1/detach", 404)] {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();

        assert_eq!(HttpReply::of(stream, &get(path)).await.code, code, "{path}");
    }
    let detach = tokio::net::TcpStream::connect(address).await.unwrap();
    assert_eq!(HttpReply::of(detach, &post("/v1/detach", "")).await.code, 404);
}

#[tokio::test]
async fn ready_means_attached_everywhere() {
    for (attached, code) in [(true, 200), (false, 503)] {
        let daemon = Daemon::start(move |_| {
            let mut status = status();
            status.interfaces[0].attached = attached;
            Ok(Answer::Status(status))
        })
        .await;

        assert_eq!(daemon.exchange(&get("/readyz")).await.code, code);
        assert_eq!(daemon.exchange(&get("/livez")).await.code, 200);
    }
}

#[tokio::test]
async fn a_controller_that_is_gone_is_said_and_not_waited_for() {
    let (events, _) = mpsc::channel(1);
    let daemon = Daemon::with(Desk::new(events, fake::PROBE)).await;

    let reply = daemon.exchange(&get("/v1/status")).await;

    assert_eq!((reply.code, reply.json()["detail"].clone()), (503, json!("the daemon is stopping")));
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_silent_is_not_waited_for_longer_than_agreed() {
    let (events, _never_read) = mpsc::channel(1);
    let desk = Desk::new(events, fake::PROBE);
    let begin = Instant::now();

    let refusal = desk.ask(Request::Status).await.unwrap_err();

    assert!(format!("{refusal:?}").contains("504"));
    assert!(begin.elapsed() >= ANSWER_TIMEOUT && begin.elapsed() < ANSWER_TIMEOUT * 2);
}

#[tokio::test(start_paused = true)]
async fn idle_clients_lose_their_places_to_one_that_asks() {
    let daemon = Daemon::start(|_| Ok(Answer::Stats(vec![]))).await;
    let mut idle = Vec::new();
    for _ in 0..server::MAX_CONNECTIONS {
        idle.push(UnixStream::connect(&daemon.path).await.unwrap());
    }

    let reply = daemon.exchange(&get("/v1/stats")).await;

    assert_eq!(reply.code, 200);
    assert_eq!(idle[0].read(&mut [0; 256]).await.unwrap_or(0), 0, "the first idle client was hung up on");
}

#[tokio::test]
async fn answers_under_way_are_finished_when_the_daemon_stops() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (desk, mut events) = fake::silent_desk();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.sock");
    let socket = listen::socket(&path).await.unwrap();
    let serving = tokio::spawn(server::serve_socket(socket, desk, async { drop(stopped.await) }));
    let asking = tokio::spawn({
        let path = path.clone();
        async move { Client::new(path).detach().await }
    });

    let crate::event::Event::Request(Request::Detach, reply) = events.recv().await.unwrap() else { panic!() };
    stop.send(()).unwrap();
    tokio::task::yield_now().await;
    reply.send(Ok(Answer::Done)).unwrap();

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
async fn an_address_in_use_is_said_in_one_line() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();

    let error = listen::metrics(address).await.unwrap_err();

    assert!(error.to_string().starts_with(&format!("listen on {address}: address in use")), "{error}");
    assert_eq!(error.exit(), Exit::Conflict);
}

#[tokio::test]
async fn the_client_knows_a_dead_daemon_from_a_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let dead = Client::new(directory.path().join("xlb.sock")).status().await.unwrap_err();
    assert!(dead.is_nobody_there() && dead.exit() == Exit::Unreachable, "{dead}");

    let daemon = Daemon::start(refuses(crate::problem::ProblemKind::Conflict, "no")).await;
    let refused = Client::new(&daemon.path).status().await.unwrap_err();
    assert!(!refused.is_nobody_there() && refused.exit() == Exit::Conflict, "{refused}");
}

#[tokio::test]
async fn what_is_no_socket_is_not_taken_for_a_dead_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("xlb.toml");
    std::fs::write(&file, "version = 1").unwrap();

    for path in [file.as_path(), directory.path()] {
        let error = Client::new(path).status().await.unwrap_err();

        assert!(error.to_string().ends_with(": this is no socket"), "{error}");
        assert!(!error.is_nobody_there() && error.exit() == Exit::Unreachable);
    }
}

#[tokio::test]
async fn the_client_takes_a_daemon_that_hangs_up_for_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _head = stream.read(&mut [0; 1024]).await;
    });

    let error = Client::new(&path).status().await.unwrap_err();

    assert_eq!(error.exit(), Exit::Unreachable, "{error}");
    assert!(!error.is_nobody_there(), "it may still live");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_stands_still_does_not_hold_who_only_looks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.sock");
    let _never_accepts = tokio::net::UnixListener::bind(&path).unwrap();
    let begin = Instant::now();

    let error = Client::new(&path).status().await.unwrap_err();

    assert!(begin.elapsed() < Duration::from_secs(10), "a monitoring plugin is ended by then");
    assert_eq!(error.to_string(), "GET /v1/status: the daemon gave no answer within 5s");
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
    assert!(error.to_string().starts_with("GET /v1/status: the answer makes no sense"), "{error}");
}

fn files_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
