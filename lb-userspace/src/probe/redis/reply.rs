//! Commands and replies of Redis (RESP2), as far as a probe needs them. No I/O.
//!
//! A reply is text or an error. Numbers, arrays and everything of RESP3 belong to commands that a probe does not send.

use super::super::limited::ANSWER_MAX_BYTES;

/// Maximum length of a line, with its end.
const LINE_MAX_BYTES: usize = 1024;
const LINE_END: &[u8] = b"\r\n";

/// The reply to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    /// It begins with a word in capitals, as in `NOAUTH Authentication required.`
    Error(String),
}

/// This is not Redis, or a reply of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A command: an array of strings.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(LINE_END);
    }
    bytes
}

/// The reply at the beginning, and where it ends. `None`: it is incomplete.
pub fn parse(received: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let Some((kind, _)) = received.split_first() else { return Ok(None) };
    if !matches!(kind, b'+' | b'-' | b'$') {
        return Err(Malformed);
    }
    let Some(line) = line_of(received)? else { return Ok(None) };
    let (text, end) = (&line[1..], line.len() + LINE_END.len());
    match kind {
        b'+' => Ok(Some((Reply::Text(lossy(text)), end))),
        b'-' => Ok(Some((Reply::Error(lossy(text)), end))),
        _ => string(received, end, length(text)?),
    }
}

/// The first line, if it is complete.
fn line_of(received: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let looked_at = &received[..received.len().min(LINE_MAX_BYTES)];
    match looked_at.windows(LINE_END.len()).position(|window| window == LINE_END) {
        Some(end) => Ok(Some(&received[..end])),
        None if looked_at.len() == LINE_MAX_BYTES => Err(Malformed),
        None => Ok(None),
    }
}

/// A string of this many bytes, and a line end.
fn string(received: &[u8], from: usize, length: usize) -> Result<Option<(Reply, usize)>, Malformed> {
    let (to, end) = (from + length, from + length + LINE_END.len());
    let rest = &received[to.min(received.len())..end.min(received.len())];
    if !LINE_END.starts_with(rest) {
        return Err(Malformed);
    }
    Ok((rest == LINE_END).then(|| (Reply::Text(lossy(&received[from..to])), end)))
}

/// A string that is too long is never read, and neither is a missing one (`-1`).
fn length(digits: &[u8]) -> Result<usize, Malformed> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.filter(|number| is_number && *number <= ANSWER_MAX_BYTES).ok_or(Malformed)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Reply {
        Reply::Text(text.to_owned())
    }

    #[test]
    fn a_reply_is_known_when_it_is_complete_and_not_before() {
        for (bytes, reply) in [
            ("+PONG\r\n", text("PONG")),
            ("-NOAUTH Authentication required.\r\n", Reply::Error("NOAUTH Authentication required.".to_owned())),
            ("$0\r\n\r\n", text("")),
            ("$12\r\nrole:master\n\r\n", text("role:master\n")),
            ("$4\r\na\r\nb\r\n", text("a\r\nb")),
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes.as_bytes()[..cut]), Ok(None), "{bytes:?} cut at {cut}");
            }
            assert_eq!(parse(format!("{bytes}+OK").as_bytes()), Ok(Some((reply, bytes.len()))), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_as_soon_as_it_shows() {
        for wrong in [
            "H", "*1\r\n", ":1\r\n", "%1\r\n", "$-1\r\n", "$+1\r\n", "$\r\n", "$65537\r\n",
            "$99999999999999999999\r\n", "$1\r\nab", "$1\r\na\rb",
        ] {
            assert_eq!(parse(wrong.as_bytes()), Err(Malformed), "{wrong:?}");
        }
        let endless = format!("+{}", "x".repeat(LINE_MAX_BYTES));
        assert_eq!(parse(endless.as_bytes()), Err(Malformed));
    }

    #[test]
    fn a_word_cannot_end_a_command() {
        assert_eq!(command(&[b"AUTH", b"a\r\n*1\r\n"]), b"*2\r\n$4\r\nAUTH\r\n$7\r\na\r\n*1\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise(bytes in "[-+$0-9a-f\r\n]{0,40}") {
            if let Ok(Some((_, end))) = parse(bytes.as_bytes()) {
                prop_assert!(end <= bytes.len());
                prop_assert_eq!(parse(&bytes.as_bytes()[..end - 1]), Ok(None));
            }
        }

        #[test]
        fn a_string_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let sent = command(&[&bytes]);
            let (_, string) = sent.split_at(b"*1\r\n".len());

            prop_assert_eq!(parse(string), Ok(Some((Reply::Text(lossy(&bytes)), string.len()))));
        }
    }
}
