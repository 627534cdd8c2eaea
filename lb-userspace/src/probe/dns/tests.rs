//! Probes of name servers on loopback: well-behaved, broken and hostile ones.

use tokio::net::TcpStream;

use super::{
    message::tests::{answer, question},
    *,
};
use crate::{
    event::ProbeResult,
    probe::{
        ProbeOutcome,
        fixture::{AMPLE, Backend, UdpBackend, configured, drain, probe_as, probe_within, refusing, told},
    },
};

const KEYS: &str = "type = 'dns'\nport = 1\nquery_name = 'www.example.org'";
const OVER_TCP: &str = "type = 'dns'\nquery_name = 'www.example.org'\nover = 'tcp'";
const SHORT: Duration = Duration::from_millis(150);
const ADDRESS: (u16, &[u8]) = (1, &[192, 0, 2, 1]);

#[tokio::test]
async fn the_code_of_the_answer_decides() {
    for (code, expected, outcome, detail) in [
        (0, "NOERROR", ProbeOutcome::Success, "NOERROR, 1 record"),
        (2, "NOERROR", ProbeOutcome::Failure, "SERVFAIL"),
        (3, "NOERROR", ProbeOutcome::Failure, "NXDOMAIN"),
        (3, "NXDOMAIN", ProbeOutcome::Success, "NXDOMAIN, 1 record"),
        (0, "NXDOMAIN", ProbeOutcome::Failure, "NOERROR"),
        (11, "NOERROR", ProbeOutcome::Failure, "response code 11"),
    ] {
        let keys = format!("expect_code = '{expected}'");
        for result in both(&keys, move |query| answer(query, code, &[ADDRESS])).await {
            assert_eq!(told(&result), (outcome, detail), "{code}, {expected}");
        }
    }
}

#[tokio::test]
async fn one_record_must_be_the_expected_one() {
    for (expected, outcome, detail) in [
        ("192.0.2.1", ProbeOutcome::Success, "NOERROR, 2 records"),
        ("192.0.2.2", ProbeOutcome::Failure, "NOERROR, 2 records, none is `192.0.2.2`"),
    ] {
        let keys = format!("expect_answer = '{expected}'");
        for result in both(&keys, |query| answer(query, 0, &[(5, b"\x03web\xc0\x10"), ADDRESS])).await {
            assert_eq!(told(&result), (outcome, detail));
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off_has_a_code_and_no_records() {
    let backend = UdpBackend::new(|query| vec![cut_off(query)]).await;
    for (keys, outcome, detail) in [
        ("", ProbeOutcome::Success, "NOERROR, cut off"),
        (
            "expect_answer = '192.0.2.1'",
            ProbeOutcome::Failure,
            "NOERROR, but the answer is cut off: use over = \"tcp\"",
        ),
    ] {
        let result = probe_as(backend.address, &format!("{KEYS}\n{keys}")).await;

        assert_eq!(told(&result), (outcome, detail));
    }
}

#[tokio::test]
async fn datagrams_that_answer_another_query_are_ignored() {
    let forged = |query: &[u8]| {
        let mut forged = answer(query, 2, &[]);
        forged[0] ^= 1;
        forged
    };
    let with_answer = UdpBackend::new(move |query| {
        let other = message::query(0, &question("example.org", RecordType::A));
        vec![forged(query), answer(&other, 2, &[]), query.to_vec(), b"x".to_vec(), answer(query, 0, &[])]
    })
    .await;
    let without = UdpBackend::new(move |query| vec![forged(query), query.to_vec()]).await;

    let answered = probe_as(with_answer.address, KEYS).await;
    let unanswered = probe_within(without.address, configured(KEYS), SHORT).await;

    assert_eq!(told(&answered), (ProbeOutcome::Success, "NOERROR, 0 records"));
    assert_eq!(
        told(&unanswered),
        (ProbeOutcome::Failure, "2 datagrams that did not answer the query")
    );
}

#[tokio::test]
async fn a_malformed_message_is_a_failure() {
    let cut_short = |query: &[u8]| {
        let mut message = answer(query, 0, &[ADDRESS]);
        message.pop();
        message
    };
    for result in both("", cut_short).await {
        assert_eq!(told(&result), (ProbeOutcome::Failure, "a malformed DNS message"));
    }
}

#[tokio::test]
async fn a_datagram_of_any_size_is_bounded() {
    for (length, outcome, detail) in [
        (MAX_DATAGRAM, ProbeOutcome::Success, "NOERROR, 0 records"),
        (MAX_DATAGRAM + 1, ProbeOutcome::Failure, "an answer of more than 4096 bytes"),
        (60_000, ProbeOutcome::Failure, "an answer of more than 4096 bytes"),
    ] {
        let backend = UdpBackend::new(move |query| {
            let mut message = answer(query, 0, &[]);
            message.resize(length, 0);
            vec![message]
        })
        .await;

        let result = probe_as(backend.address, KEYS).await;

        assert_eq!(told(&result), (outcome, detail), "{length}");
    }
}

#[tokio::test]
async fn what_a_stream_holds_is_one_answer_to_the_query() {
    let other = message::query(0, &question("example.org", RecordType::A));
    let largest = |query: &[u8]| {
        let message = answer(query, 0, &[ADDRESS]);
        let padding = vec![0; 65_535 - message.len()];
        [message, padding].concat()
    };

    let unrelated = probe_as(Tcp::server(move |_| framed(&other)).await.address, OVER_TCP).await;
    let early = probe_as(Tcp::server(|query| framed(&answer(query, 0, &[]))[..20].to_vec()).await.address, OVER_TCP).await;
    let large = probe_as(Tcp::server(move |query| framed(&largest(query))).await.address, OVER_TCP).await;
    let closed = probe_as(Tcp::server(|_| vec![0]).await.address, OVER_TCP).await;

    assert_eq!(told(&unrelated), (ProbeOutcome::Failure, "not an answer to the query"));
    assert_eq!(told(&early), (ProbeOutcome::Failure, "closed before the end of the answer"));
    assert_eq!(told(&large), (ProbeOutcome::Success, "NOERROR, 1 record"));
    assert_eq!(told(&closed), (ProbeOutcome::Failure, "closed without an answer"));
}

#[tokio::test]
async fn a_server_of_another_protocol_is_no_name_server() {
    let http = Backend::new(async |mut stream: TcpStream| {
        let _ = stream.write_all(&b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(1000)).await;
        drain(&mut stream).await;
    })
    .await;

    let result = probe_as(http.address, OVER_TCP).await;

    assert_eq!(told(&result), (ProbeOutcome::Failure, "not an answer to the query"));
}

#[tokio::test]
async fn silence_and_one_byte_at_a_time_are_timeouts() {
    let udp = UdpBackend::new(|_| Vec::new()).await;
    let silent = Backend::new(async |mut stream: TcpStream| drain(&mut stream).await).await;
    let dripping = Backend::new(async |mut stream: TcpStream| {
        while stream.write_all(&[0xff]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for (address, keys) in [(udp.address, KEYS), (silent.address, OVER_TCP), (dripping.address, OVER_TCP)] {
        let result = probe_within(address, configured(keys), SHORT).await;

        assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 150ms"));
    }
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let udp = UdpBackend::new(|_| Vec::new()).await.close().await;

    for (address, keys) in [(udp, KEYS), (refusing().await, OVER_TCP)] {
        let result = probe_as(address, keys).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "connection refused"));
    }
}

#[tokio::test]
async fn each_query_has_another_id() {
    let (send, mut ids) = tokio::sync::mpsc::unbounded_channel();
    let backend = UdpBackend::new(move |query| {
        send.send([query[0], query[1]]).unwrap();
        vec![answer(query, 0, &[])]
    })
    .await;

    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..8 {
        probe_within(backend.address, configured(KEYS), AMPLE).await;
        seen.insert(ids.recv().await.unwrap());
    }

    assert!(seen.len() > 4, "{seen:?}");
}

/// Probes servers that answer so over UDP and over TCP.
async fn both(keys: &str, answer: impl Fn(&[u8]) -> Vec<u8> + Copy + Send + Sync + 'static) -> [ProbeResult; 2] {
    let udp = UdpBackend::new(move |query| vec![answer(query)]).await;
    let tcp = Tcp::server(move |query| framed(&answer(query))).await;
    [
        probe_as(udp.address, &format!("{KEYS}\n{keys}")).await,
        probe_as(tcp.address, &format!("{OVER_TCP}\n{keys}")).await,
    ]
}

struct Tcp;

impl Tcp {
    /// Sends these bytes after each query, and closes.
    async fn server(answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Backend {
        let answer = std::sync::Arc::new(answer);
        Backend::new(move |mut stream| {
            let answer = std::sync::Arc::clone(&answer);
            async move {
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.unwrap();
                let _ = stream.write_all(&answer(&query)).await;
                let _ = stream.shutdown().await;
                drain(&mut stream).await;
            }
        })
        .await
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn cut_off(query: &[u8]) -> Vec<u8> {
    let mut message = answer(query, 0, &[ADDRESS]);
    message[2] |= 0x02;
    message.truncate(message.len() - 3);
    message
}
