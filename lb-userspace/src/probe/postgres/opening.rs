//! The first bytes of a server: is this PostgreSQL?
//!
//! The length of a message is in its second to fifth byte. Those of an HTTP or SSH server announce a gigabyte, and a
//! client that waits for it would report silence.

use std::io;

use super::super::{
    inspected::{Inspected, Inspector},
    tls_client::TlsMode,
};

/// The tags of the messages that may come first: authentication, error, notice, and negotiation of the protocol.
const FIRST_TAGS: &[u8] = b"RENv";
/// The answers to SSLRequest: yes, no, and an error of the server.
const TLS_ANSWERS: &[u8] = b"SNE";

/// A connection that fails if its first bytes are not PostgreSQL's.
pub type Opening<S> = Inspected<S, FirstBytes>;

/// What the first bytes must be.
pub struct FirstBytes {
    /// The bytes that may come at each of the first places.
    expected: Expected,
    /// How many bytes have come, until enough are known.
    seen: usize,
}

/// What the server is asked first.
#[derive(Clone, Copy)]
enum Expected {
    /// To begin TLS.
    TlsAnswer,
    /// To log in.
    Message,
}

/// Another protocol.
#[derive(Debug, thiserror::Error)]
#[error("not PostgreSQL")]
pub struct NotPostgres;

/// Inspects what a server with this mode sends first.
pub const fn opening<S>(stream: S, mode: TlsMode) -> Opening<S> {
    let expected = match mode {
        TlsMode::Off => Expected::Message,
        TlsMode::Require | TlsMode::Verify => Expected::TlsAnswer,
    };
    Inspected::new(stream, FirstBytes { expected, seen: 0 })
}

impl Expected {
    /// May this byte come at this place?
    fn allows(self, place: usize, byte: u8) -> bool {
        match (self, place) {
            (Self::TlsAnswer, 0) => TLS_ANSWERS.contains(&byte),
            (Self::Message, 0) => FIRST_TAGS.contains(&byte),
            // A length whose first byte is a letter is more than 512 MiB.
            (Self::Message, 1) => byte < b' ',
            (Self::TlsAnswer | Self::Message, _) => true,
        }
    }
}

impl Inspector for FirstBytes {
    fn inspect(&mut self, received: &[u8]) -> io::Result<()> {
        let (seen, expected) = (self.seen, self.expected);
        self.seen = seen.saturating_add(received.len());
        let is_allowed = (seen..).zip(received).take(2).all(|(place, byte)| expected.allows(place, *byte));
        if is_allowed { Ok(()) } else { Err(io::Error::other(NotPostgres)) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn other_protocols_are_told_by_their_first_bytes_in_any_pieces() {
        let greetings: [(&[u8], TlsMode, bool); 10] = [
            (b"R\0\0\0\x08\0\0\0\0", TlsMode::Off, true),
            (b"E\0\0\0\x50SFATAL\0", TlsMode::Off, true),
            (b"E\x01\0\0\0SFATAL\0", TlsMode::Off, true),
            (b"HTTP/1.1 400 Bad Request\r\n", TlsMode::Off, false),
            (b"SSH-2.0-OpenSSH_9.2\r\n", TlsMode::Off, false),
            (b"RFB 003.008\n", TlsMode::Off, false),
            (b"J\0\0\0\x0a8.0.33\0", TlsMode::Off, false),
            (b"S\x16\x03\x03", TlsMode::Verify, true),
            (b"N", TlsMode::Require, true),
            (b"HTTP/1.1 400 Bad Request\r\n", TlsMode::Require, false),
        ];
        for (greeting, mode, is_postgres) in greetings {
            for cut in 0..greeting.len() {
                let pieces = greeting[..cut].chain(&greeting[cut..]);
                let mut received = Vec::new();

                let outcome = opening(pieces, mode).read_to_end(&mut received).await;

                assert_eq!(outcome.is_ok(), is_postgres, "{} cut at {cut}", greeting.escape_ascii());
            }
        }
    }
}
