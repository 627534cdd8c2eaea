//! The parsers of untrusted bytes, for the programs in `fuzz/` (`cfg(fuzzing)`) and for a test of their first inputs.
//!
//! No bytes may make one of them panic, overflow, run on or keep more than its limit. What holds besides is asserted:
//! mostly that the result does not depend on how the bytes were cut into pieces.

use std::{fmt::Debug, net::SocketAddr};

use futures_util::FutureExt as _;
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, join, sink},
    time::Instant,
};

use crate::{
    cluster::{self, exchange, wire as etcd},
    datapath::SharedFlow,
    group::wire::{Flow, Frame},
    probe::{
        Fault, agent,
        dns::{
            message::{self as dns, Question, RecordType},
            name::Name,
        },
        exec::output,
        grpc,
        http::{
            body::{BODY_MAX_BYTES, Body, Framing},
            expect::Expect,
            head,
            request::Request,
        },
        mysql::{
            engine::Engine, greeting::Greeting, handshake, refusal::Refusal, rows, status::Status,
            wire::Packets,
        },
        postgres::{caught_up::CaughtUp, opening::opening, state::State},
        redis::{reply, state},
        tls_client::TlsMode,
    },
    role_store, spec,
};

/// The line of an agent, as it comes over a connection.
pub fn agent_line(bytes: &[u8]) {
    let line = in_pieces(bytes, async |mut stream| agent::read_line(&mut stream).await);
    if let Ok(line) = line {
        agent::line::parse(&line);
    }
}

/// The answer of a name server to the query with id 0 for the addresses of example.org.
pub fn dns_message(bytes: &[u8]) {
    if let Ok(name) = Name::parse("example.org") {
        let _ = dns::parse(0, &Question { name, kind: RecordType::A }, bytes);
    }
}

/// An answer of etcd to a transaction.
pub fn etcd_answer(bytes: &[u8]) {
    if let Ok(answer) = etcd::parse::<etcd::TxnAnswer>(bytes) {
        let stored = exchange::stored(answer);
        let document = stored.into_iter().filter_map(|it| it.document);
        document.for_each(|it| assert_eq!(cluster::pushed(&it.shown()).0, Some(it.revision)));
    }
}

/// A file whose services are stored for a fleet: what is stored has no table of the node.
pub fn shared_part(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(part) = spec::shared_part("x", text) {
        assert!(part.in_place.lines().count() <= text.lines().count());
        assert_eq!(spec::shared_part("x", &part.compact).map(|it| it.compact), Ok(part.compact.clone()));
    }
}

/// A domain name, at the place that the first byte says.
pub fn dns_name(bytes: &[u8]) {
    let Some((start, message)) = bytes.split_first() else { return };
    if let Some((name, end)) = Name::read(message, usize::from(*start)) {
        assert!(end > usize::from(*start) && end <= message.len());
        assert_eq!(Name::read(name.bytes(), 0), Some((name.clone(), name.bytes().len())));
    }
}

/// What a program prints.
pub fn exec_output(bytes: &[u8]) {
    let (one, two) = bytes.split_at(middle(bytes));
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    output::keep(&mut whole, bytes);
    output::keep(&mut pieces, one);
    output::keep(&mut pieces, two);
    assert_eq!(whole, pieces);
    assert!(!output::first_line(&whole).chars().any(char::is_control));
}

/// A frame of another node, without its length. What is sent on is what was read.
pub fn group_frame(bytes: &[u8]) {
    let Ok(frame) = Frame::parse(bytes) else { return };
    for flow in frame.flows.iter().chain(&frame.ended) {
        if let Ok(shared) = SharedFlow::try_from(flow) {
            assert_eq!(&Flow::from(&shared), flow);
        }
    }
    assert!(matches!(Frame::parse(&frame.encode_to_vec()), Ok(again) if again == frame));
}

/// The body of a gRPC response.
pub fn grpc_message(bytes: &[u8]) {
    let _ = grpc::message::response(bytes);
}

/// The status of a gRPC response: its code and, after a line end, its message.
pub fn grpc_status(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (code, message) = bytes.split_at(end);
    if let Err(text) = grpc::status::judge(code, message) {
        assert!(!text.chars().any(char::is_control));
    }
}

/// The chunks of a body.
pub fn http_chunks(bytes: &[u8]) {
    let (mut whole, mut pieces) = (Body::new(Framing::Chunked), Body::new(Framing::Chunked));
    let result = whole.push(bytes);
    assert_eq!(bytes.chunks(3).try_for_each(|piece| pieces.push(piece)), result);
    assert_eq!((whole.text(), whole.is_complete()), (pieces.text(), pieces.is_complete()));
    assert!(whole.text().len() <= BODY_MAX_BYTES);
}

/// The head of a response. Once it is known, more bytes do not change it.
pub fn http_head(bytes: &[u8]) {
    let whole = head::parse(bytes);
    let beginning = head::parse(&bytes[..middle(bytes)]);
    if beginning != Ok(None) {
        assert_eq!(whole, beginning);
    }
}

/// A whole response, as it comes over a connection.
pub fn http_response(bytes: &[u8]) {
    let expect = Expect { text: Some("ready".to_owned()), ..Expect::default() };
    let request = Request { expect, ..Request::get("/", None) };
    let address = SocketAddr::from(([192, 0, 2, 1], 80));
    let _ = in_pieces(bytes, async |stream| request.exchange(&mut join(stream, sink()), address, 80).await);
}

/// The first packet of a server, without its header.
pub fn mysql_greeting(bytes: &[u8]) {
    if let Ok(greeting) = Greeting::parse(bytes) {
        let engine = Engine::of(&greeting.version);
        let _ = (engine.replica_query(), engine.replica_right());
    }
}

/// What a server says to a login.
pub fn mysql_login(bytes: &[u8]) {
    let _ = handshake::Reply::parse(bytes);
}

/// An error packet.
pub fn mysql_refusal(bytes: &[u8]) {
    if let Ok(refusal) = Refusal::parse(bytes)
        && let Fault::Failed(text) | Fault::Undecided(text) = refusal.into()
    {
        assert!(!text.chars().any(char::is_control));
    }
}

/// Packets: the answers to the query for the state and to that for the primaries.
pub fn mysql_rows(bytes: &[u8]) {
    let (one, two) = bytes.split_at(middle(bytes));
    let mut whole = mysql_answers(&[bytes]);
    assert_eq!(mysql_answers(&[one, two]), whole);
    if let (Some(replica), Some(state)) = (whole.pop(), whole.pop())
        && let Ok(status) = Status::read(&state, &replica)
    {
        assert!(!status.to_string().chars().any(char::is_control));
        let _ = status.report();
    }
}

fn mysql_answers(pieces: &[&[u8]]) -> Vec<rows::Rows> {
    let (mut packets, mut answers) = (Packets::default(), Vec::new());
    let mut reading = rows::Reading::default();
    for piece in pieces {
        packets.push(piece);
        while let Ok(Some(payload)) = packets.take() {
            match reading.push(&payload) {
                Ok(None) => {}
                Ok(Some(rows::Answer::Rows(rows))) if answers.is_empty() => {
                    reading = rows::Reading::default();
                    packets.first(b"");
                    answers.push(rows);
                }
                Ok(Some(rows::Answer::Rows(rows))) => answers.push(rows),
                Ok(Some(rows::Answer::Refused(_))) | Err(_) => return answers,
            }
            if answers.len() == 2 {
                return answers;
            }
        }
    }
    answers
}

/// The first bytes of a server that was asked to begin TLS, and of one that was sent a login.
pub fn postgres_opening(bytes: &[u8]) {
    for mode in [TlsMode::Off, TlsMode::Verify] {
        let received = in_pieces(bytes, async |stream| {
            let mut received = Vec::new();
            opening(stream, mode).read_to_end(&mut received).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(received)
        });
        assert!(received.is_err() || received.as_deref() == Ok(bytes));
    }
}

/// The columns of a row, one on each line. An empty one is NULL.
pub fn postgres_state(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let columns: Vec<_> = text.split('\n').map(|column| Some(column).filter(|it| !it.is_empty())).collect();
    if let Some(state) = State::read(&columns, &mut CaughtUp::default(), Instant::now()) {
        let _ = state.report.to_string();
    }
}

/// A reply of a server, which is complete at its last byte and not before.
pub fn redis_reply(bytes: &[u8]) {
    if let Ok(Some((reply, end))) = reply::parse(bytes) {
        assert_eq!(reply::parse(&bytes[..end]), Ok(Some((reply, end))));
        assert_eq!(reply::parse(&bytes[..end - 1]), Ok(None));
    }
}

/// The replication section of a server, or its error.
pub fn redis_state(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(report) = state::read(&text) {
        let _ = report.to_string();
    }
    let _ = state::obstacle(&text);
}

/// The file with terms, primaries and fences. What is read is written as it can be read again.
pub fn role_store(bytes: &[u8]) {
    if let Ok(memory) = role_store::decode(bytes) {
        let written = serde_json::to_vec(&role_store::encode(&memory)).unwrap_or_default();
        assert_eq!(role_store::decode(&written), Ok(memory));
    }
}

/// The configuration.
pub fn configuration(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Err(mistakes) = spec::parse("xlb.toml", text)
    {
        assert!(!mistakes.to_string().is_empty());
    }
}

/// Where two pieces may meet, somewhere else for other bytes. Two of them, because answers are longer than 255 bytes.
fn middle(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |first| usize::from(u16::from_le_bytes(*first)) % bytes.len())
}

/// What is read if the bytes come at once, which must be what is read if they come in two pieces.
fn in_pieces<T: Debug + PartialEq, E: Debug + PartialEq>(
    bytes: &[u8],
    read: impl AsyncFn(Box<dyn AsyncRead + Unpin + '_>) -> Result<T, E>,
) -> Result<T, E> {
    let (one, two) = bytes.split_at(middle(bytes));
    let run = |stream| match read(stream).now_or_never() {
        Some(result) => result,
        None => unreachable!("bytes in memory are never waited for"),
    };
    let whole = run(Box::new(bytes));
    assert_eq!(run(Box::new(one.chain(two))), whole);
    whole
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    type Target = fn(&[u8]);

    const TARGETS: &[(&str, Target)] = &[
        ("agent_line", agent_line),
        ("configuration", configuration),
        ("dns_message", dns_message),
        ("dns_name", dns_name),
        ("etcd_answer", etcd_answer),
        ("exec_output", exec_output),
        ("group_frame", group_frame),
        ("grpc_message", grpc_message),
        ("grpc_status", grpc_status),
        ("http_chunks", http_chunks),
        ("http_head", http_head),
        ("http_response", http_response),
        ("mysql_greeting", mysql_greeting),
        ("mysql_login", mysql_login),
        ("mysql_refusal", mysql_refusal),
        ("mysql_rows", mysql_rows),
        ("postgres_opening", postgres_opening),
        ("postgres_state", postgres_state),
        ("redis_reply", redis_reply),
        ("redis_state", redis_state),
        ("role_store", role_store),
        ("shared_part", shared_part),
    ];
    /// What the bytes of an input are replaced by.
    const BYTES: [u8; 8] = [0, 1, b'\n', b'0', b';', 0x7f, 0xc0, 0xff];

    #[test]
    fn no_input_near_the_first_ones_makes_a_parser_fail() {
        for (name, target) in TARGETS {
            target(b"");
            for mut input in first_inputs(name) {
                for end in 0..=input.len() {
                    target(&input[..end]);
                }
                for at in 0..input.len() {
                    for byte in BYTES {
                        let before = std::mem::replace(&mut input[at], byte);
                        target(&input);
                        input[at] = before;
                    }
                }
            }
        }
    }

    #[test]
    fn every_target_has_a_program_that_calls_it() {
        let mut programs: Vec<_> = names(&directory("src/bin")).collect();
        programs.sort();
        let targets: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();

        assert_eq!(programs, targets.iter().map(|name| format!("{name}.rs")).collect::<Vec<_>>());
        for name in &targets {
            let program = fs::read_to_string(directory(&format!("src/bin/{name}.rs"))).unwrap();
            assert!(program.contains(&format!("lb_userspace::fuzzing::{name}(bytes)")), "{name}");
        }
        assert!(names(&directory("corpus")).all(|name| targets.contains(&name.as_str())));
    }

    fn first_inputs(target: &str) -> Vec<Vec<u8>> {
        let directory = directory("corpus").join(target);
        if !directory.exists() {
            return Vec::new();
        }
        names(&directory).map(|name| fs::read(directory.join(name)).unwrap()).collect()
    }

    fn names(directory: &Path) -> impl Iterator<Item = String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap())
    }

    fn directory(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(path)
    }
}
