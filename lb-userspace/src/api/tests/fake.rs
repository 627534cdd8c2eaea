//! A daemon whose controller is a function, and a client that sees the bytes.

use std::{path::PathBuf, time::Duration, time::SystemTime};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    api::{
        desk::{Desk, Probe},
        listen, server,
    },
    event::{Answer, Event, ProbeOutcome, ProbeResult, Request, Target},
    probe,
    problem::{Problem, ProblemKind},
    spec::{self, BackendName},
    view,
};

/// The API of a daemon that serves until the test ends.
pub struct Daemon {
    pub path: PathBuf,
    _directory: TempDir,
}

impl Daemon {
    pub async fn start(controller: impl FnMut(Request) -> Result<Answer, Problem> + Send + 'static) -> Self {
        Self::with(desk(controller).0).await
    }

    pub async fn with(desk: Desk) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xlb.sock");
        let socket = listen::socket(&path).await.unwrap();
        tokio::spawn(server::serve_socket(socket, desk, std::future::pending()));
        Self { path, _directory: directory }
    }

    pub async fn exchange(&self, request: &str) -> HttpReply {
        HttpReply::of(UnixStream::connect(&self.path).await.unwrap(), request).await
    }
}

pub const PROBE: Probe = |_| Box::pin(async { result() });

pub fn desk(
    mut controller: impl FnMut(Request) -> Result<Answer, Problem> + Send + 'static,
) -> (Desk, JoinHandle<()>) {
    let (desk, mut events) = silent_desk();
    let task = tokio::spawn(async move {
        while let Some(Event::Request(request, reply)) = events.recv().await {
            let _client_is_gone = reply.send(controller(request));
        }
    });
    (desk, task)
}

pub fn silent_desk() -> (Desk, mpsc::Receiver<Event>) {
    let (events, receiver) = mpsc::channel(8);
    (Desk::new(events, PROBE), receiver)
}

/// A controller that expects one question and knows one answer.
pub fn says(question: Request, answer: Answer) -> impl FnMut(Request) -> Result<Answer, Problem> {
    let mut answer = Some(answer);
    move |request| {
        assert_eq!(request, question);
        Ok(answer.take().unwrap())
    }
}

pub fn refuses(kind: ProblemKind, detail: &'static str) -> impl FnMut(Request) -> Result<Answer, Problem> {
    move |_| Err(Problem { kind, detail: detail.to_owned(), mistakes: vec!["a:1:1: b".to_owned()] })
}

pub struct HttpReply {
    pub code: u16,
    pub body: String,
    headers: Vec<(String, String)>,
}

impl HttpReply {
    pub async fn of(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Self {
        // A server that has refused the head may hang up on the body.
        let _refused_early = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _reset = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Self { code, body: body.to_owned(), headers }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(this, _)| this == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        if self.body.is_empty() { serde_json::Value::Null } else { serde_json::from_str(&self.body).unwrap() }
    }
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: xlb\r\n\r\n")
}

pub fn post(path: &str, body: &str) -> String {
    http("POST", path, body)
}

pub fn patch(path: &str, body: &str) -> String {
    http("PATCH", path, body)
}

pub fn http(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: xlb\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

pub fn status() -> view::Status {
    view::Status {
        version: "0.1.0".into(),
        uptime_seconds: 1,
        config: "/etc/xlb/xlb.toml".into(),
        interfaces: vec![view::Interface {
            name: "eth0".into(),
            index: 2,
            mode: "native".into(),
            attached: true,
            mtu: 1500,
        }],
        services: vec![],
        flows: view::FlowCount::default(),
        overlay: vec![],
        warnings: vec![],
        last_reload_successful: true,
        last_reload_error: None,
        map_memory_bytes: 0,
    }
}

pub fn service() -> view::Service {
    view::Service {
        name: "web".into(),
        listen: vec!["192.0.2.10:80".parse().unwrap()],
        protocol: "tcp".into(),
        mode: "full-nat".into(),
        scheduler: "round-robin".into(),
        source: vec![],
        backends: 1,
        backends_up: 1,
        backends_serving: 1,
        flows: 0,
    }
}

pub fn backend() -> view::Backend {
    view::Backend {
        service: "web".into(),
        name: "web-1".into(),
        address: "10.0.0.11:8080".parse().unwrap(),
        weight: 100,
        backup: false,
        health: "up".into(),
        admin_state: "ready".into(),
        flows: 0,
        drained: false,
    }
}

pub fn target() -> Target {
    Target {
        backend: BackendName::new("web", "web-1"),
        address: "10.0.0.11:8080".parse().unwrap(),
        source: None,
        check: spec::HealthCheck {
            probe: probe::Probe::Tcp(probe::Tcp),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
        },
        believed: None,
    }
}

/// What [`PROBE`] finds.
fn result() -> ProbeResult {
    ProbeResult {
        outcome: ProbeOutcome::Timeout,
        detail: "no answer within 1s".into(),
        duration: Duration::from_millis(1500),
        at: SystemTime::UNIX_EPOCH,
    }
}

/// The same as JSON shows it.
pub fn probed() -> view::ProbeResult {
    view::ProbeResult {
        result: "timeout".into(),
        detail: "no answer within 1s".into(),
        duration_seconds: 1.5,
    }
}
