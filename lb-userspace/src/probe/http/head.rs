//! The head of an HTTP/1 response: the status line and the headers (RFC 9112). No I/O.
//!
//! As lenient as HAProxy: lines may end in LF alone, headers may be folded (obs-fold, RFC 9112, 5.2), and the contents
//! of headers do not matter.

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

/// The status of the final response, or `None` while its headers are incomplete.
pub fn status(received: &[u8]) -> Result<Option<u16>, Malformed> {
    let mut rest = received;
    loop {
        // Robustness asks for tolerance of empty lines before the first one (RFC 9112, 2.2).
        rest = &rest[rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()..];
        let Some(line) = take_line(&mut rest) else { return begins_like_http(rest).map(|()| None) };
        let status = status_of(line).ok_or(Malformed::NotHttp)?;
        if !take_headers(&mut rest)? {
            return Ok(None);
        }
        if !is_interim(status) {
            return Ok(Some(status));
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
fn take_headers(rest: &mut &[u8]) -> Result<bool, Malformed> {
    let mut count = 0;
    while let Some(line) = take_line(rest) {
        if line.is_empty() {
            return Ok(true);
        }
        count += 1;
        if count > HEADERS_MAX {
            return Err(Malformed::TooLarge);
        }
        let is_folded = matches!(line[0], b' ' | b'\t');
        if !is_folded && !line.contains(&b':') {
            return Err(Malformed::NotHttp);
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
}
