//! Probes of fake Redis servers: well-behaved, sick and hostile ones.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::super::{
    Answer, Fault, Place, ProbeOutcome, Prober, Role,
    fixture::{AMPLE, Backend, configured, drain, probe_as, probe_within, told},
    kept::MAX_AGE,
};

const KEYS: &str = "type = 'redis'";
const PING: &str = "*1\r\n$4\r\nPING\r\n";
const INFO: &str = "*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
const TEXT: &str = "primary, replication 0e10ff1c, offset 1234";
/// How long a test waits for a timeout.
const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_primary_tells_its_role_again_and_again_over_one_connection() {
    let (server, connections) = counting(String::new()).await;
    let mut prober = configured(KEYS).prober();

    for _ in 0..3 {
        let answer = probe(&mut prober, &server).await.unwrap();

        assert_eq!(answer.text, TEXT);
        assert_eq!(answer.facts.role.unwrap().role, Role::Primary);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn each_probe_over_a_connection_may_receive_as_much() {
    let replicas = "slave0:ip=10.0.0.2,port=6379,state=online,offset=1234,lag=0\r\n".repeat(700);
    let (server, connections) = counting(replicas).await;
    let mut prober = configured(KEYS).prober();

    for _ in 0..3 {
        assert_eq!(probe(&mut prober, &server).await.unwrap().text, TEXT);
    }

    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_connection_is_not_kept_for_ever() {
    let (server, connections) = counting(String::new()).await;
    let mut prober = configured(KEYS).prober();
    probe(&mut prober, &server).await.unwrap();

    tokio::time::pause();
    tokio::time::advance(MAX_AGE).await;
    tokio::time::resume();
    probe(&mut prober, &server).await.unwrap();

    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_opened_again_in_the_same_probe() {
    let server = Backend::new(|stream| serve(stream, 1)).await;
    let mut prober = configured(KEYS).prober();

    for _ in 0..3 {
        assert_eq!(probe(&mut prober, &server).await.unwrap().text, TEXT);
    }
}

#[tokio::test]
async fn a_password_is_sent_first_and_only_if_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    fs::write(&path, "mon\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let file = format!("password_file = '{}'", path.display());
    for (keys, auth) in [
        (KEYS.to_owned(), ""),
        (format!("{KEYS}\n{file}"), "*2\r\n$4\r\nAUTH\r\n$3\r\nmon\r\n"),
        (format!("{KEYS}\n{file}\nuser = 'xlb'"), "*3\r\n$4\r\nAUTH\r\n$3\r\nxlb\r\n$3\r\nmon\r\n"),
    ] {
        let server = Backend::new(move |mut stream| async move {
            if !auth.is_empty() {
                expect(&mut stream, auth).await;
                let _ = stream.write_all(b"+OK\r\n").await;
            }
            serve(stream, usize::MAX).await;
        })
        .await;

        let result = probe_as(server.address, &keys).await;

        assert_eq!(told(&result), (ProbeOutcome::Success, TEXT), "{keys}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_serve_or_is_none_is_told_apart() {
    use ProbeOutcome::{Failure, Undecided};
    // The reply to a command that it has not received.
    let early = format!("+PONG\r\n{}", info("role:master\r\nmaster_repl_offset:1234\r\n"));

    for (greeting, outcome, expected) in [
        ("-LOADING Redis is loading the dataset in memory\r\n", Failure, "loading its data"),
        ("-BUSY Redis is busy\r\n", Failure, "BUSY Redis is busy"),
        ("-NOAUTH Authentication required.\r\n", Undecided, "the server asks for a password: set `password_file`"),
        (
            "-ERR max number of clients reached\r\n",
            Undecided,
            "the server refuses: ERR max number of clients reached",
        ),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", Failure, "not Redis"),
        ("+PONG\r\n+role:master\r\n", Failure, "not Redis"),
        (early.as_str(), Failure, "not Redis"),
        ("+PONG\r\n*1\r\n+role:master\r\n", Failure, "not Redis"),
        ("+PONG\r\n$70000\r\n", Failure, "not Redis"),
        ("", Failure, "closed without an answer"),
        ("+PO", Failure, "closed in the middle of an answer"),
    ] {
        let said = greeting.to_owned();
        let server = Backend::new(move |mut stream| {
            let said = said.clone();
            async move {
                expect(&mut stream, PING).await;
                let _ = stream.write_all(said.as_bytes()).await;
                let _ = stream.shutdown().await;
                drain(&mut stream).await;
            }
        })
        .await;

        let result = probe_as(server.address, KEYS).await;

        assert_eq!(told(&result), (outcome, expected), "{greeting:?}");
    }
}

#[tokio::test]
async fn the_words_of_a_server_that_closes_at_once_are_read() {
    let server = Backend::hasty("-ERR max number of clients reached\r\n").await;

    let result = probe_as(server.address, KEYS).await;

    assert_eq!(
        told(&result),
        (ProbeOutcome::Undecided, "the server refuses: ERR max number of clients reached")
    );
}

#[tokio::test]
async fn a_replica_without_its_primary_tells_its_role_although_it_refuses_a_ping() {
    let server = Backend::new(async |mut stream: TcpStream| {
        expect(&mut stream, PING).await;
        let _ = stream.write_all(b"-MASTERDOWN Link with MASTER is down\r\n").await;
        expect(&mut stream, INFO).await;
        let info = info("role:slave\r\nmaster_link_status:down\r\nslave_repl_offset:1234\r\n");
        let _ = stream.write_all(info.as_bytes()).await;
        drain(&mut stream).await;
    })
    .await;

    let result = probe_as(server.address, KEYS).await;

    assert_eq!(told(&result), (ProbeOutcome::Success, "replica, receives nothing, replication 0e10ff1c, offset 1234"));
}

#[tokio::test]
async fn an_answer_is_limited() {
    for (first, rest) in [("+", "x"), ("", "+PONG\r\n")] {
        let server = Backend::new(async move |mut stream: TcpStream| {
            expect(&mut stream, PING).await;
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(rest.repeat(1000).as_bytes()).await.is_ok() {}
        })
        .await;

        let result = probe_as(server.address, KEYS).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "not Redis"), "{first}{rest}");
    }
    let one_by_one = Backend::new(async |mut stream: TcpStream| {
        expect(&mut stream, PING).await;
        let _ = stream.write_all(b"+PONG\r\n").await;
        expect(&mut stream, INFO).await;
        let long = format!("$65536\r\n{}", "x".repeat(65_530));
        let _ = stream.write_all(long.as_bytes()).await;
        drain(&mut stream).await;
    })
    .await;

    let result = probe_as(one_by_one.address, KEYS).await;

    assert_eq!(told(&result), (ProbeOutcome::Failure, "answer longer than 64 KiB"));
}

#[tokio::test]
async fn a_frozen_or_slow_server_is_silent() {
    let frozen = Backend::new(async |mut stream: TcpStream| drain(&mut stream).await).await;
    let slow = Backend::new(async |mut stream: TcpStream| {
        expect(&mut stream, PING).await;
        let _ = stream.write_all(b"+").await;
        while stream.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for server in [frozen, slow] {
        let result = probe_within(server.address, configured(KEYS), SHORT).await;

        assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 150ms"));
    }
}

async fn probe(prober: &mut Prober, server: &Backend) -> Result<Answer, Fault> {
    prober.run(Place { address: server.address, source: None }, AMPLE).await.answer
}

/// A server that answers all probes, with these further lines, and how many connections it has had.
async fn counting(lines: String) -> (Backend, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let server = Backend::new(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        serve_with(stream, usize::MAX, lines.clone())
    });
    (server.await, connections)
}

/// Answers this many probes, and closes.
async fn serve(stream: TcpStream, times: usize) {
    serve_with(stream, times, String::new()).await;
}

/// The same, with further lines.
async fn serve_with(mut stream: TcpStream, times: usize, lines: String) {
    let info = info(&format!("role:master\r\n{lines}master_repl_offset:1234\r\n"));
    for _ in 0..times {
        if !expect(&mut stream, PING).await {
            return;
        }
        let _ = stream.write_all(b"+PONG\r\n").await;
        expect(&mut stream, INFO).await;
        let _ = stream.write_all(info.as_bytes()).await;
    }
}

/// Reads this, unless the probe has closed.
async fn expect(stream: &mut TcpStream, command: &str) -> bool {
    let mut received = vec![0; command.len()];
    let has_come = stream.read_exact(&mut received).await.is_ok();
    assert!(!has_come || received == command.as_bytes(), "{}", received.escape_ascii());
    has_come
}

/// The replication section of INFO.
fn info(lines: &str) -> String {
    let id = "0e10ff1c0e1d48a5e4d1f5a56c8f9f0a81f0c3ab";
    let text = format!("# Replication\r\n{lines}master_replid:{id}\r\n");
    format!("${}\r\n{text}\r\n", text.len())
}
