//! Probes of fake PostgreSQL servers: well-behaved, sick and hostile ones.

mod tls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep},
};

use super::super::{
    Answer, Fault, Place, ProbeOutcome, Prober, Role,
    fixture::{AMPLE, Backend, configured, drain, probe_as, probe_within, refusing, told},
};
use crate::text::printable;

const KEYS: &str = "type = 'postgres'";
/// How long a test waits for a timeout.
const SHORT: Duration = Duration::from_millis(150);
const READY: &[u8] = b"Z\0\0\0\x05I";

#[tokio::test]
async fn a_primary_tells_its_role_again_and_again_over_one_connection() {
    let (connections, terminations, mut terminated) = counters();
    let counted = Arc::clone(&connections);
    let server = Backend::new(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        serve(stream, terminations.clone())
    })
    .await;
    let mut prober = configured(KEYS).prober();

    for _ in 0..3 {
        let answer = probe(&mut prober, &server).await.unwrap();

        assert_eq!(answer.text, "primary, timeline 3, 0/3000148");
        assert_eq!(answer.facts.role.unwrap().role, Role::Primary);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);

    drop(prober);

    assert_eq!(terminated.recv().await, Some(b'X'), "the server is told before the connection is closed");
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_opened_again_in_the_same_probe() {
    let server = Backend::new(async |mut stream: TcpStream| {
        log_in(&mut stream).await;
        answer_query(&mut stream).await;
        let _ = stream.write_all(&error("FATAL", "57P01", "terminating connection")).await;
    })
    .await;
    let mut prober = configured(KEYS).prober();

    for _ in 0..3 {
        let answer = probe(&mut prober, &server).await.unwrap();

        assert_eq!(answer.text, "primary, timeline 3, 0/3000148");
    }
}

#[tokio::test]
async fn what_is_known_of_a_replica_outlives_the_connection() {
    let answered = AtomicUsize::new(0);
    let server = Backend::new(move |mut stream: TcpStream| {
        let received = if answered.fetch_add(1, Ordering::Relaxed) == 0 { "0/3000148" } else { "0/3000200" };
        async move {
            log_in(&mut stream).await;
            read_message(&mut stream).await;
            let _ = stream.write_all(&answer(&replica(received))).await;
        }
    })
    .await;
    let mut prober = configured(KEYS).prober();

    for _ in 0..2 {
        let answer = probe(&mut prober, &server).await.unwrap();

        assert!(answer.facts.role.unwrap().lag.unwrap() < Duration::from_secs(900), "{}", answer.text);
    }
}

#[tokio::test]
async fn an_error_says_that_the_server_is_down_or_nothing() {
    for (code, outcome) in [
        ("28P01", ProbeOutcome::Undecided),
        ("28000", ProbeOutcome::Undecided),
        ("3D000", ProbeOutcome::Undecided),
        ("42501", ProbeOutcome::Undecided),
        ("53300", ProbeOutcome::Undecided),
        ("57P01", ProbeOutcome::Failure),
        ("57P03", ProbeOutcome::Failure),
        ("58030", ProbeOutcome::Failure),
        ("XX000", ProbeOutcome::Failure),
    ] {
        let refusal = error("FATAL", code, "this is \u{1b}[2Jwhy");
        let at_login = refusing_login(refusal.clone()).await;
        let at_query = Backend::new(move |mut stream| {
            let refusal = refusal.clone();
            async move {
                log_in(&mut stream).await;
                read_message(&mut stream).await;
                let _ = stream.write_all(&refusal).await;
            }
        })
        .await;

        for server in [at_login, at_query] {
            let result = probe_as(server.address, KEYS).await;

            let refuses = if outcome == ProbeOutcome::Undecided { "the server refuses: " } else { "" };
            assert_eq!(told(&result), (outcome, format!("{refuses}this is \u{fffd}[2Jwhy ({code})").as_str()));
        }
    }
}

#[tokio::test]
async fn a_server_that_is_none_is_told_apart() {
    let cases: [(&[u8], &str); 9] = [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "not PostgreSQL"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not PostgreSQL"),
        (b"J\0\0\0\x0a8.0.33\0\0\0\0\0", "not PostgreSQL"),
        (b"R\0\0\0\x0a8.0.33\0\0\0\0\0", "not PostgreSQL"),
        (b"E\0\0\0\x0a8.0.33\0\0\0\0\0", "not PostgreSQL"),
        (b"", "closed without an answer"),
        (b"R\0\0\0\x08\0\0\0\0", "closed without an answer"),
        (b"R\0\0\0\x08\0\0\0\0Q\0\0\0\x05I", "not PostgreSQL"),
        (b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05", "closed in the middle of an answer"),
    ];
    for (greeting, expected) in cases {
        let server = refusing_login(greeting.to_vec()).await;

        let result = probe_as(server.address, KEYS).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, expected), "{}", greeting.escape_ascii());
    }
    let result = probe_as(refusing().await, KEYS).await;
    assert_eq!(told(&result), (ProbeOutcome::Failure, "connection refused"));
}

#[tokio::test]
async fn what_a_login_needs_is_said() {
    let gss = message(b'R', &7_u32.to_be_bytes());
    let clear_text = message(b'R', &3_u32.to_be_bytes());
    for (request, expected) in [
        (clear_text, "the server asks for a password: set `password_file`"),
        (sasl(10, b"SCRAM-SHA-256\0\0"), "the server asks for a password: set `password_file`"),
        (gss, "cannot log in: unsupported authentication method"),
    ] {
        let server = refusing_login(request).await;

        let result = probe_as(server.address, KEYS).await;

        assert_eq!(told(&result), (ProbeOutcome::Undecided, expected));
    }
}

#[tokio::test]
async fn a_login_cannot_be_made_expensive() {
    let server = Backend::new(async |mut stream: TcpStream| {
        read_startup(&mut stream).await;
        let _ = stream.write_all(&sasl(10, b"SCRAM-SHA-256\0\0")).await;
        let first = read_message(&mut stream).await;
        let first = String::from_utf8_lossy(&first);
        let (_, nonce) = first.split_once(",r=").unwrap();
        let challenge = format!("r={nonce}x,s=AAAA,i=4294967295");
        let _ = stream.write_all(&sasl(11, challenge.as_bytes())).await;
        drain(&mut stream).await;
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "mon").unwrap();
    std::process::Command::new("chmod").arg("600").arg(&password).status().unwrap();

    let keys = format!("{KEYS}\npassword_file = '{}'", password.display());
    let result = probe_as(server.address, &keys).await;

    let (outcome, detail) = told(&result);
    assert_eq!(outcome, ProbeOutcome::Undecided);
    assert_eq!(detail, "cannot log in: SCRAM iteration count exceeds the maximum allowed");
}

#[tokio::test]
async fn an_answer_is_limited() {
    let notice = message(b'N', b"SNOTICE\0C00000\0Mhello\0\0");
    let huge_error = [b"E\x01\0\0\0".as_slice(), &[b'x'; 1 << 20]].concat();
    let rows: Vec<u8> = [columns(1), row(&[Some("x")]).repeat(10_000)].concat();
    let parameter = message(b'S', b"name\0value\0");
    for (at_login, at_query) in [
        (Some(huge_error), None),
        (Some([message(b'R', &[0; 4]), notice.repeat(10_000)].concat()), None),
        (Some([message(b'R', &[0; 4]), parameter.repeat(10_000)].concat()), None),
        (None, Some(rows)),
        (None, Some(notice.repeat(10_000))),
    ] {
        let server = Backend::new(move |mut stream| {
            let (at_login, at_query) = (at_login.clone(), at_query.clone());
            async move {
                if let Some(bytes) = at_login {
                    read_startup(&mut stream).await;
                    while stream.write_all(&bytes).await.is_ok() {}
                } else if let Some(bytes) = at_query {
                    log_in(&mut stream).await;
                    read_message(&mut stream).await;
                    while stream.write_all(&bytes).await.is_ok() {}
                }
            }
        })
        .await;

        let result = probe_as(server.address, KEYS).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "answer longer than 64 KiB"));
    }
}

#[tokio::test]
async fn rows_that_were_not_asked_for_are_refused() {
    let good = columns(11);
    let one = row(&primary());
    let end = [message(b'C', b"SELECT 1\0"), READY.to_vec()].concat();
    for answer in [
        [&columns(1), &row(&[Some("f")]), &end].map(Vec::as_slice).concat(),
        [&good, &row(&[Some("f")]), &end].map(Vec::as_slice).concat(),
        [&good, &one, &one, &end].map(Vec::as_slice).concat(),
        [&good, &end].map(Vec::as_slice).concat(),
        [&one, &end].map(Vec::as_slice).concat(),
        [&good, &row(&[Some("\u{fffd}"); 11]), &end].map(Vec::as_slice).concat(),
    ] {
        let server = Backend::new(move |mut stream| {
            let answer = answer.clone();
            async move {
                log_in(&mut stream).await;
                read_message(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                drain(&mut stream).await;
            }
        })
        .await;

        let result = probe_as(server.address, KEYS).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "not PostgreSQL"), "{}", printable(&result.detail));
    }
}

#[tokio::test]
async fn a_frozen_or_slow_server_is_silent() {
    let frozen = Backend::new(async |mut stream: TcpStream| drain(&mut stream).await).await;
    let frozen_later = Backend::new(async |mut stream: TcpStream| {
        log_in(&mut stream).await;
        drain(&mut stream).await;
    })
    .await;
    let slow = Backend::new(async |mut stream: TcpStream| {
        read_startup(&mut stream).await;
        for byte in message(b'N', &[b'x'; 10_000]) {
            sleep(Duration::from_millis(5)).await;
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    })
    .await;
    for (server, keys) in [
        (&frozen, KEYS),
        (&frozen, "type = 'postgres'\ntls = 'require'"),
        (&frozen_later, KEYS),
        (&slow, KEYS),
    ] {
        let started = Instant::now();

        let result = probe_within(server.address, configured(keys), SHORT).await;

        assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 150ms"));
        assert!(started.elapsed() < AMPLE / 4);
    }
}

#[tokio::test]
async fn a_connection_that_was_silent_is_not_used_again() {
    let (connections, ..) = counters();
    let counted = Arc::clone(&connections);
    let server = Backend::new(move |mut stream| {
        let is_first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            log_in(&mut stream).await;
            answer_query(&mut stream).await;
            if !is_first {
                answer_query(&mut stream).await;
            }
            drain(&mut stream).await;
        }
    })
    .await;
    let mut prober = configured(KEYS).prober();
    let place = Place { address: server.address, source: None };

    assert!(prober.run(place, AMPLE).await.answer.is_ok());
    assert_eq!(prober.run(place, SHORT).await.answer, Err(Fault::Silent));
    assert!(prober.run(place, AMPLE).await.answer.is_ok());
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_server_without_tls_receives_nothing_in_clear_text() {
    let (sender, mut seen) = mpsc::channel(8);
    let server = Backend::new(move |mut stream: TcpStream| {
        let sender = sender.clone();
        async move {
            let request = read_startup(&mut stream).await;
            let _ = stream.write_all(b"N").await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let _ = sender.send((request, rest)).await;
        }
    })
    .await;

    let result = probe_as(server.address, "type = 'postgres'\ntls = 'require'").await;

    assert_eq!(told(&result), (ProbeOutcome::Failure, "the server has no TLS"));
    let (request, rest) = seen.recv().await.unwrap();
    assert_eq!(request, 80_877_103_u32.to_be_bytes(), "SSLRequest");
    assert!(rest.is_empty(), "{rest:?}");
}

async fn probe(prober: &mut Prober, server: &Backend) -> Result<Answer, Fault> {
    prober.run(Place { address: server.address, source: None }, AMPLE).await.answer
}

fn counters() -> (Arc<AtomicUsize>, mpsc::Sender<u8>, mpsc::Receiver<u8>) {
    let (sender, receiver) = mpsc::channel(8);
    (Arc::default(), sender, receiver)
}

/// Answers queries until something else comes, and tells what that was.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, others: mpsc::Sender<u8>) {
    log_in(&mut stream).await;
    while let Ok(tag) = stream.read_u8().await {
        if tag != b'Q' {
            let _ = others.send(tag).await;
            return;
        }
        read_startup(&mut stream).await;
        let _ = stream.write_all(&answer(&primary())).await;
    }
}

/// A server that sends this instead of a login, and closes.
async fn refusing_login(answer: Vec<u8>) -> Backend {
    Backend::new(move |mut stream| {
        let answer = answer.clone();
        async move {
            read_startup(&mut stream).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
            drain(&mut stream).await;
        }
    })
    .await
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    read_startup(stream).await;
    let _ = stream.write_all(&[message(b'R', &[0; 4]), READY.to_vec()].concat()).await;
}

async fn answer_query<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    read_message(stream).await;
    let _ = stream.write_all(&answer(&primary())).await;
}

fn answer(values: &[Option<&str>; 11]) -> Vec<u8> {
    [columns(11), row(values), message(b'C', b"SELECT 1\0"), READY.to_vec()].concat()
}

fn primary() -> [Option<&'static str>; 11] {
    let mut columns = [None; 11];
    columns[..5].copy_from_slice(&[
        Some("f"),
        Some("7426000000000000001"),
        Some("0/3000148"),
        Some("00000003"),
        Some("f"),
    ]);
    columns
}

/// Its last transaction was 900 s ago.
const fn replica(received: &str) -> [Option<&str>; 11] {
    [
        Some("t"),
        Some("7426000000000000001"),
        Some("0/3000148"),
        None,
        Some("t"),
        Some("streaming"),
        Some("3"),
        Some("0.1"),
        Some("60"),
        Some(received),
        Some("900"),
    ]
}

/// A message without a tag: a length, which counts itself, and the rest, which is returned.
async fn read_startup<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let length = stream.read_u32().await.unwrap_or(4);
    let mut body = vec![0; length as usize - 4];
    let _ = stream.read_exact(&mut body).await;
    body
}

async fn read_message<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let _tag = stream.read_u8().await;
    read_startup(stream).await
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

fn sasl(kind: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[kind.to_be_bytes().as_slice(), body].concat())
}

fn error(severity: &str, code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0").as_bytes())
}

/// The description of text columns.
fn columns(count: u16) -> Vec<u8> {
    let column = [b"c\0".as_slice(), &[0; 6], &25_u32.to_be_bytes(), &[0; 8]].concat();
    message(b'T', &[count.to_be_bytes().as_slice(), &column.repeat(count.into())].concat())
}

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend(value.unwrap_or_default().as_bytes());
    }
    message(b'D', &body)
}
