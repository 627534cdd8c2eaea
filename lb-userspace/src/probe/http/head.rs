//! The head of an HTTP/1 response: the status line and the headers (RFC 9112). No I/O.
//!
//! As lenient as HAProxy: lines may end in LF alone, headers may be folded (obs-fold, RFC 9112, 5.2), and only the headers that
//! describe the body matter.

use super::body::Framing;

/// Maximum size of everything up to the end of the headers, including interim responses.
pub const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Header lines of one response.
pub const HEADERS_MAX: usize = 100;

const VERSION: &[u8] = b"HTTP/1.";

/// Why this is not the head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    NotHttp,
    TooLarge,
}

/// The head of the final response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub framing: Framing,
    /// The body is compressed, by this method.
    pub encoding: Option<String>,
    /// Where the body begins.
    pub end: usize,
}

/// The head of the final response, or `None` while its headers are incomplete.
pub fn parse(received: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut rest = received;
    loop {
        // Robustness asks for tolerance of empty lines before the first one (RFC 9112, 2.2).
        rest = &rest[rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()..];
        let Some(line) = take_line(&mut rest) else { return begins_like_http(rest).map(|()| None) };
        let status = status_of(line).ok_or(Malformed::NotHttp)?;
        let mut head = Head { status, framing: Framing::UntilClosed, encoding: None, end: 0 };
        if !take_headers(&mut rest, &mut head)? {
            return Ok(None);
        }
        if !is_interim(status) {
            head.end = received.len() - rest.len();
            return Ok(Some(head));
        }
    }
}

impl Head {
    /// A header that says how the body is sent. A chunked body has no length (RFC 9112, 6.3).
    fn learn(&mut self, name: &[u8], value: &[u8]) {
        let names: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"content-encoding"];
        if !names.iter().any(|it| name.eq_ignore_ascii_case(it)) {
            return;
        }
        let value = String::from_utf8_lossy(value).to_lowercase();
        if name.eq_ignore_ascii_case(b"content-length") && self.framing != Framing::Chunked {
            self.framing = value.parse().map_or(Framing::UntilClosed, Framing::Length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") && value.ends_with("chunked") {
            self.framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case(b"content-encoding") && value != "identity" {
            self.encoding = Some(value);
        }
    }
}

/// An interim response is followed by another one (RFC 9110, 15.2), except for 101 Switching Protocols.
fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}

fn begins_like_http(incomplete: &[u8]) -> Result<(), Malformed> {
    let compared = incomplete.len().min(VERSION.len());
    if incomplete[..compared] == VERSION[..compared] { Ok(()) } else { Err(Malformed::NotHttp) }
}

/// `HTTP/1.1 200 OK`. The reason phrase, and the space before it, may be missing.
fn status_of(line: &[u8]) -> Option<u16> {
    let [minor, b' ', status @ ..] = line.strip_prefix(VERSION)? else { return None };
    let (code, reason) = status.split_at_checked(3)?;
    let is_status_line = minor.is_ascii_digit()
        && code.iter().all(u8::is_ascii_digit)
        && reason.first().is_none_or(|byte| *byte == b' ');
    is_status_line.then(|| code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
}

/// Returns whether the empty line that ends the headers was found.
fn take_headers(rest: &mut &[u8], head: &mut Head) -> Result<bool, Malformed> {
    let mut count = 0;
    while let Some(line) = take_line(rest) {
        if line.is_empty() {
            return Ok(true);
        }
        count += 1;
        if count > HEADERS_MAX {
            return Err(Malformed::TooLarge);
        }
        if !matches!(line[0], b' ' | b'\t') {
            let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed::NotHttp)?;
            head.learn(&line[..colon], line[colon + 1..].trim_ascii());
        }
    }
    Ok(false)
}

/// The next line without its end, if it is complete.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = (&rest[..end], &rest[end + 1..]);
    *rest = after;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(received: &[u8]) -> Result<Option<u16>, Malformed> {
        Ok(parse(received)?.map(|head| head.status))
    }

    #[test]
    fn the_status_is_known_when_the_headers_are_complete_and_not_before() {
        let heads: [(&str, u16); 7] = [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 200),
            ("HTTP/1.0 503\r\n\r\n", 503),
            ("HTTP/1.1 204 \n\n", 204),
            ("\r\nHTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", 302),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\td\r\n\r\n", 200),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Gone\r\n\r\n",
                404,
            ),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 101),
        ];
        for (head, expected) in heads {
            for cut in 0..head.len() {
                assert_eq!(status(&head.as_bytes()[..cut]), Ok(None), "{head:?} cut at {cut}");
            }
            assert_eq!(status(format!("{head}body: \0").as_bytes()), Ok(Some(expected)), "{head:?}");
        }
    }

    #[test]
    fn what_is_no_response_is_refused_as_soon_as_it_shows() {
        for garbage in [
            "S",
            "HTTP/2",
            "HTTP/1.x 200 OK\r\n",
            "HTTP/1.1 20\r\n",
            "HTTP/1.1 2000 OK\r\n",
            "HTTP/1.1  200\r\n",
            "HTTP/1.1 OK\r\n",
            "HTTP/1.1\r\n",
            "<html>",
            "HTTP/1.1 200 OK\r\nno colon\r\n",
            "\x15\x03\x01",
        ] {
            assert_eq!(status(garbage.as_bytes()), Err(Malformed::NotHttp), "{garbage:?}");
        }
    }

    #[test]
    fn headers_are_counted() {
        let head = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));

        assert_eq!(status(head(HEADERS_MAX).as_bytes()), Ok(Some(200)));
        assert_eq!(status(head(HEADERS_MAX + 1).as_bytes()), Err(Malformed::TooLarge));
    }

    #[test]
    fn the_headers_say_how_the_body_is_sent() {
        let cases = [
            ("Content-Length: 12", Framing::Length(12), None),
            ("content-length:12\r\nContent-Encoding: GZIP", Framing::Length(12), Some("gzip")),
            ("Transfer-Encoding: chunked", Framing::Chunked, None),
            ("Transfer-Encoding: gzip, Chunked\r\nContent-Length: 12", Framing::Chunked, None),
            ("Content-Length: many", Framing::UntilClosed, None),
            ("Content-Encoding: identity", Framing::UntilClosed, None),
        ];
        for (headers, framing, encoding) in cases {
            let head = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n{headers}\r\n\r\n");

            let parsed = parse(format!("{head}body").as_bytes()).unwrap().unwrap();

            let encoding = encoding.map(str::to_owned);
            assert_eq!(parsed, Head { status: 200, framing, encoding, end: head.len() }, "{headers}");
        }
    }
}
