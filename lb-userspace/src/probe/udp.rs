//! `type = "udp"`: up if the server answers a datagram.
//!
//! One datagram is sent, once. The socket is connected, so that only datagrams of the server count, and an ICMP port
//! unreachable is an error at once.

use std::time::Duration;

use lb_common::net::Protocol;
use tokio::time::timeout;
use toml::de::DeValue;

use super::{Answer, CheckType, Fault, Place, Verdict, connect::connect_udp};
use crate::{
    document::{AnyKey, Key, Keys, value},
    text::quote,
};

/// Maximum length of what is sent, and of what is compared with the answer.
const MAX_BYTES: usize = 1024;
/// How much of a binary answer is shown.
const SHOWN_BYTES: usize = 16;
const HEX: &str = "hex:";

const SEND: Key<Vec<u8>> = Key::new("send", bytes);
const EXPECT_REPLY: Key<Vec<u8>> = Key::new("expect_reply", bytes);

/// Sends a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    send: Vec<u8>,
    /// The answer must begin with this.
    expect_reply: Vec<u8>,
}

impl CheckType for Udp {
    const NAME: &'static str = "udp";
    const KEYS: &'static [&'static dyn AnyKey] = &[&SEND, &EXPECT_REPLY];
    type Session = ();

    fn read(keys: &Keys<'_>) -> Self {
        if !keys.has(&SEND) {
            keys.refuse(&SEND, "type = \"udp\" needs the key `send`: what to send, as text or like \"hex:0a0b\"");
        }
        Self { send: keys.or(&SEND, Vec::new()), expect_reply: keys.or(&EXPECT_REPLY, Vec::new()) }
    }

    fn over(&self) -> Option<Protocol> {
        Some(Protocol::Udp)
    }

    async fn run(&self, (): &mut (), place: Place, limit: Duration) -> Verdict {
        Verdict::now(timeout(limit, self.exchange(place)).await.unwrap_or(Err(Fault::Silent)))
    }
}

impl Udp {
    async fn exchange(&self, place: Place) -> Result<Answer, Fault> {
        let socket = connect_udp(place).await?;
        socket.send(&self.send).await?;
        // The kernel cuts off what does not fit. The rest is not looked at.
        let mut buffer = [0; MAX_BYTES];
        let length = socket.recv(&mut buffer).await?;
        let reply = &buffer[..length];
        if reply.starts_with(&self.expect_reply) {
            Ok(format!("answered {}", shown(reply)).into())
        } else {
            Err(Fault::Failed(format!("unexpected answer: {}", shown(reply))))
        }
    }
}

/// The beginning of an answer, in the notation of the configuration.
fn shown(reply: &[u8]) -> String {
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
    if reply.is_empty() {
        "an empty datagram".to_owned()
    } else if reply.iter().all(is_text) {
        quote(String::from_utf8_lossy(reply).trim_end())
    } else {
        let digits: String = reply.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}")).collect();
        let rest = if reply.len() > SHOWN_BYTES { "..." } else { "" };
        format!("`{HEX}{digits}{rest}`")
    }
}

/// Text, or any bytes in hexadecimal digits after `hex:`.
fn bytes(value: &DeValue<'_>) -> Result<Vec<u8>, String> {
    let written = value::text(value)?;
    let bytes = match written.strip_prefix(HEX) {
        Some(digits) => from_hex(digits).ok_or_else(|| {
            format!("{} is not hexadecimal: expected pairs of digits, as in \"hex:0a0b\"", quote(written))
        })?,
        None => written.as_bytes().to_vec(),
    };
    match bytes.len() {
        0 => Err("it is empty: expected text, or bytes like \"hex:0a0b\"".to_owned()),
        1..=MAX_BYTES => Ok(bytes),
        length => Err(format!("{length} bytes are too many: at most {MAX_BYTES}")),
    }
}

/// Pairs of digits, and spaces anywhere.
fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits
        .chars()
        .filter(|it| *it != ' ')
        .map(|it| it.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{
        Probe, ProbeOutcome,
        fixture::{AMPLE, UdpBackend, configured, probe_as, probe_within, told},
    };

    const KEYS: &str = "type = 'udp'\nport = 1\nsend = 'PING'";
    const SHORT: Duration = Duration::from_millis(150);

    #[tokio::test]
    async fn any_answer_is_good_without_an_expectation() {
        let echo = UdpBackend::new(|request| vec![request.to_vec()]).await;
        let empty = UdpBackend::new(|_| vec![Vec::new()]).await;

        assert_eq!(told(&probe_as(echo.address, KEYS).await), (ProbeOutcome::Success, "answered `PING`"));
        assert_eq!(
            told(&probe_as(empty.address, KEYS).await),
            (ProbeOutcome::Success, "answered an empty datagram")
        );
    }

    #[tokio::test]
    async fn an_answer_must_begin_as_expected() {
        let backend = UdpBackend::new(|_| vec![b"\0\x01PONG and more".to_vec()]).await;
        for (expect, outcome, detail) in [
            ("hex:00 01", ProbeOutcome::Success, "answered `hex:0001504f4e4720616e64206d6f7265`"),
            ("PONG", ProbeOutcome::Failure, "unexpected answer: `hex:0001504f4e4720616e64206d6f7265`"),
        ] {
            let result = probe_as(backend.address, &format!("{KEYS}\nexpect_reply = '{expect}'")).await;

            assert_eq!(told(&result), (outcome, detail), "{expect}");
        }
    }

    #[tokio::test]
    async fn the_largest_datagram_is_cut_off() {
        let backend = UdpBackend::new(|_| vec![vec![b'x'; 65_507]]).await;
        let expect = "x".repeat(MAX_BYTES);

        let result = probe_as(backend.address, &format!("{KEYS}\nexpect_reply = '{expect}'")).await;

        assert_eq!(result.outcome, ProbeOutcome::Success);
        assert!(result.detail.len() < 100, "{}", result.detail);
    }

    #[tokio::test]
    async fn a_closed_port_is_known_at_once() {
        let closed = UdpBackend::new(|_| Vec::new()).await.close().await;

        let result = probe_as(closed, KEYS).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "connection refused"));
    }

    #[tokio::test]
    async fn silence_and_datagrams_of_others_are_no_answer() {
        let silent = UdpBackend::new(|_| Vec::new()).await;
        let elsewhere = UdpBackend::answering_from_elsewhere(b"PONG").await;
        for backend in [silent, elsewhere] {
            let result = probe_within(backend.address, configured(KEYS), SHORT).await;

            assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 150ms"));
        }
    }

    #[tokio::test]
    async fn a_probe_comes_from_its_source() {
        let backend = UdpBackend::new(|_| vec![b"PONG".to_vec()]).await;
        let Probe::Udp(udp) = configured(KEYS) else { panic!() };
        let source = |source: &str| Place { address: backend.address, source: Some(source.parse().unwrap()) };

        let good = udp.run(&mut (), source("127.0.0.2"), AMPLE).await;
        let lacking = udp.run(&mut (), source("192.0.2.1"), AMPLE).await;

        assert!(good.answer.is_ok() && backend.last_peer().unwrap().ip().to_string() == "127.0.0.2");
        let expected = "cannot bind to source 192.0.2.1: cannot assign requested address";
        assert_eq!(lacking.answer, Err(Fault::local(expected)));
    }

    #[test]
    fn bytes_are_text_or_hexadecimal() {
        for (written, read) in
            [("a b", &b"a b"[..]), ("hex:0a 0B", b"\x0a\x0b"), ("hex", b"hex"), ("ä", b"\xc3\xa4")]
        {
            assert_eq!(bytes(&string(written)).unwrap(), read, "{written}");
        }
        for wrong in ["", "hex:", "hex:0", "hex:0a0", "hex:0g", "hex:+1", "hex:0\u{ff11}"] {
            assert!(bytes(&string(wrong)).is_err(), "{wrong}");
        }
        assert!(bytes(&string(&"x".repeat(MAX_BYTES))).is_ok());
        assert!(bytes(&string(&"x".repeat(MAX_BYTES + 1))).is_err());
    }

    #[test]
    fn only_the_beginning_of_a_binary_answer_is_shown() {
        assert_eq!(shown(&[0; SHOWN_BYTES]), format!("`hex:{}`", "00".repeat(SHOWN_BYTES)));
        assert_eq!(shown(&[0; SHOWN_BYTES + 1]), format!("`hex:{}...`", "00".repeat(SHOWN_BYTES)));
    }

    fn string(text: &str) -> DeValue<'static> {
        DeValue::String(text.to_owned().into())
    }
}
