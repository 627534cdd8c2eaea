//! Probes against real sockets on loopback: well-behaved, broken and hostile backends.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    probe::{
        Http, Probe, Tcp,
        fixture::{AMPLE, Backend, drain, probe_as, probe_within, read_head, refusing, target, told},
    },
    spec::HealthCheck,
};

/// How long a test waits for a timeout.
const SHORT: Duration = Duration::from_millis(150);
/// How much a probe may exceed its timeout on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn tcp_is_up_if_a_connection_is_accepted() {
    let backend = Backend::new(async |_| {}).await;

    let result = probe_tcp(backend.address, AMPLE).await;

    assert_eq!(told(&result), (ProbeOutcome::Success, "connected"));
}

#[tokio::test]
async fn tcp_closes_its_connection_cleanly() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();

    probe_tcp(listener.local_addr().unwrap(), AMPLE).await;

    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "a FIN, not a reset");
}

#[tokio::test]
async fn a_probe_comes_from_its_source() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = "127.0.0.2".parse().unwrap();
    let tcp =
        Target { source: Some(source), ..target(listener.local_addr().unwrap(), Probe::Tcp(Tcp), AMPLE) };
    let http = Probe::Http(Http::get("/", None));
    let http =
        Target { check: HealthCheck { probe: http, timeout: SHORT, ..tcp.check.clone() }, ..tcp.clone() };

    for target in [tcp, http] {
        probe(&mut target.check.probe.prober(), &target).await;

        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from.ip(), source);
    }
}

#[tokio::test]
async fn a_source_that_this_host_lacks_says_nothing_about_the_backend() {
    let backend = Backend::new(async |_| {}).await;
    let source = Some("192.0.2.1".parse().unwrap());

    let target = Target { source, ..target(backend.address, Probe::Tcp(Tcp), AMPLE) };
    let finding = probe(&mut target.check.probe.prober(), &target).await;

    let expected = "cannot bind to source 192.0.2.1: cannot assign requested address";
    assert_eq!(finding.answer, Err(Fault::local(expected)));
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let address = refusing().await;

    for result in [probe_tcp(address, AMPLE).await, probe_http(address, AMPLE).await] {
        assert_eq!(told(&result), (ProbeOutcome::Failure, "connection refused"));
    }
}

#[tokio::test]
async fn http_is_up_on_2xx_and_3xx_only_and_never_follows() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ProbeOutcome::Success, "HTTP 200"),
        ("HTTP/1.0 200 OK\r\n\r\nread until the end", ProbeOutcome::Success, "HTTP 200"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ProbeOutcome::Success, "HTTP 204"),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", ProbeOutcome::Success, "HTTP 302"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ProbeOutcome::Failure, "HTTP 404"),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\n", ProbeOutcome::Failure, "HTTP 503"),
    ];
    for (answer, outcome, detail) in cases {
        let backend = Backend::answering(answer.into()).await;

        let result = probe_http(backend.address, AMPLE).await;

        assert_eq!(told(&result), (outcome, detail), "{answer}");
    }
}

#[tokio::test]
async fn http_asks_for_the_path_of_the_host_and_says_who_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cases = [("", address.to_string()), ("host = 'shop.example'", "shop.example".to_owned())];
    for (host, expected) in cases {
        let keys = format!("type = 'http'\npath = '/healthz'\n{host}");
        let (_, head) = tokio::join!(probe_as(address, &keys), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await
        });

        let head = head.to_lowercase();
        assert!(head.starts_with("get /healthz http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {expected}\r\n")), "{head}");
        assert!(head.contains(&format!("user-agent: xlb/{}\r\n", env!("CARGO_PKG_VERSION"))), "{head}");
        assert!(head.contains("connection: close\r\n"), "{head}");
    }
}

#[tokio::test]
async fn other_protocols_are_reported_as_not_http() {
    for garbage in ["SSH-2.0-OpenSSH_9.2p1\r\n", "\x15\x03\x01\0\x02\x02\x0a", "220 mail ESMTP\r\n\r\n"] {
        let backend = Backend::answering(garbage.into()).await;

        let result = probe_http(backend.address, AMPLE).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "not HTTP"), "{garbage:?}");
    }
}

#[tokio::test]
async fn a_backend_that_sends_first_is_not_http() {
    let backend = Backend::new(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await;
        drain(&mut stream).await;
    })
    .await;
    for _ in 0..20 {
        let result = probe_http(backend.address, AMPLE).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "not HTTP"));
    }
}

#[tokio::test]
async fn huge_and_endless_headers_are_cut_off() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(20 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for answer in [long, many] {
        let backend = Backend::answering(answer.into_bytes()).await;

        let result = probe_http(backend.address, AMPLE).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "headers longer than 16 KiB or 100 lines"));
    }
    let endless = Backend::repeating(b"HTTP/1.1 200 OK\r\nX: ", b"yyyyyyyyyyyyyyyy").await;

    let result = probe_http(endless.address, AMPLE).await;

    assert_eq!(told(&result), (ProbeOutcome::Failure, "headers longer than 16 KiB or 100 lines"));
}

#[tokio::test]
async fn only_part_of_an_endless_body_is_read() {
    let sized =
        Backend::repeating(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", &[b'x'; 4096]).await;
    let chunked =
        Backend::repeating(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nxlb!\r\n").await;
    for backend in [sized, chunked] {
        let result = probe_http(backend.address, AMPLE).await;

        assert_eq!(told(&result), (ProbeOutcome::Success, "HTTP 200"));
    }
}

#[tokio::test]
async fn an_honest_answer_at_the_limits_is_good() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 65536\r\nX: {}\r\n\r\n", "y".repeat(15 * 1024));
    let backend = Backend::answering([head.into_bytes(), vec![b'x'; 65536]].concat()).await;

    let result = probe_http(backend.address, AMPLE).await;

    assert_eq!(told(&result), (ProbeOutcome::Success, "HTTP 200"));
}

#[tokio::test]
async fn silence_and_dripping_end_at_the_timeout() {
    let silent = Backend::new(async |stream| {
        let _held_open = stream;
        std::future::pending().await
    });
    let drips_headers = Backend::dripping("HTTP/1.1 200 OK\r\n", "a");
    let drips_continues = Backend::dripping("", "HTTP/1.1 100 Continue\r\n\r\n");
    for backend in [silent.await, drips_headers.await, drips_continues.await] {
        let result = probe_http(backend.address, SHORT).await;

        assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 150ms"));
        assert!((SHORT..SHORT + SLACK).contains(&result.duration), "{:?}", result.duration);
    }
}

#[tokio::test]
async fn the_body_does_not_matter_once_the_headers_are_complete() {
    let answering = async |answer: &str| Backend::answering(answer.into()).await;
    let kinds = [
        ("folded header", answering("HTTP/1.1 200 OK\r\nA: b\r\n  c\r\nContent-Length: 0\r\n\r\n").await),
        (
            "reset after the answer",
            Backend::resetting("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nha").await,
        ),
        ("reset before the request was read", Backend::hasty("HTTP/1.1 200 OK\r\n\r\n").await),
        (
            "event stream",
            Backend::held_open("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await,
        ),
        ("no length, until it closes", answering("HTTP/1.1 200 OK\r\n\r\nsome text").await),
        ("slow body", Backend::dripping("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "a").await),
        ("cut chunk", answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf").await),
        ("broken chunk", answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number").await),
        ("shorter than its length", answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await),
    ];
    for (kind, backend) in kinds {
        let result = probe_http(backend.address, AMPLE).await;

        assert_eq!(told(&result), (ProbeOutcome::Success, "HTTP 200"), "{kind}");
        assert!(result.duration < SLACK, "{kind}: {:?}", result.duration);
    }
}

#[tokio::test]
async fn the_duration_of_a_check_ends_with_the_headers() {
    let backend = Backend::held_open("HTTP/1.1 200 OK\r\n\r\n").await;
    let started = Instant::now();

    let result = probe_http(backend.address, AMPLE).await;

    // The connection is held open for 50 ms more, for the body.
    let after_the_headers = started.elapsed() - result.duration;
    assert!(after_the_headers >= Duration::from_millis(50), "{after_the_headers:?}");
}

#[tokio::test]
async fn an_early_end_is_distinguished_from_a_reset() {
    let closes = Backend::new(async |mut stream| drop(read_head(&mut stream).await)).await;
    let resets = Backend::new(async |mut stream| {
        read_head(&mut stream).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let breaks_off = Backend::answering(b"HTTP/1.1 200 OK\r\nContent-Len".to_vec()).await;

    let cases = [
        (closes, "closed without an answer"),
        (resets, "connection reset by peer"),
        (breaks_off, "closed before the end of the headers"),
    ];
    for (backend, detail) in cases {
        let result = probe_http(backend.address, AMPLE).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, detail));
    }
}

async fn probe_tcp(address: SocketAddr, timeout: Duration) -> ProbeResult {
    probe_within(address, Probe::Tcp(Tcp), timeout).await
}

async fn probe_http(address: SocketAddr, timeout: Duration) -> ProbeResult {
    probe_within(address, Probe::Http(Http::get("/healthz", None)), timeout).await
}
