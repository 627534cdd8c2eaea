//! The beginning of a response's body, without its framing (RFC 9112, 6 and 7). No I/O.

/// Maximum length of the body that is looked at.
pub const BODY_MAX_BYTES: usize = 64 * 1024;
/// Maximum length of what is read of it, with the framing of chunks.
const FRAMED_MAX_BYTES: usize = 4 * BODY_MAX_BYTES;
/// Maximum length of the line before a chunk, with its extensions.
const CHUNK_LINE_MAX_BYTES: usize = 256;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection.
    UntilClosed,
}

/// The framing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Takes the bytes after the headers, in any pieces.
#[derive(Debug)]
pub struct Body {
    next: Next,
    text: Vec<u8>,
    /// Bytes taken, with their framing.
    taken: usize,
}

/// What the next byte is.
#[derive(Debug)]
enum Next {
    Data { left: u64, is_chunk: bool },
    /// The line with the size of a chunk, so far.
    ChunkLine(Vec<u8>),
    /// The line end after a chunk.
    ChunkEnd { has_return: bool },
    Nothing,
}

impl Body {
    pub fn new(framing: Framing) -> Self {
        let next = match framing {
            Framing::Length(0) => Next::Nothing,
            Framing::Length(left) => Next::Data { left, is_chunk: false },
            Framing::Chunked => Next::ChunkLine(Vec::new()),
            Framing::UntilClosed => Next::Data { left: u64::MAX, is_chunk: false },
        };
        Self { next, text: Vec::new(), taken: 0 }
    }

    /// Nothing more is to come, or is looked at.
    pub fn is_complete(&self) -> bool {
        matches!(self.next, Next::Nothing)
            || self.text.len() == BODY_MAX_BYTES
            || self.taken >= FRAMED_MAX_BYTES
    }

    /// The bytes so far.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    pub fn push(&mut self, mut received: &[u8]) -> Result<(), Broken> {
        while !received.is_empty() && !self.is_complete() {
            let rest = self.step(received)?;
            self.taken += received.len() - rest.len();
            received = rest;
        }
        Ok(())
    }

    /// Takes at least one byte. Returns the others.
    fn step<'r>(&mut self, received: &'r [u8]) -> Result<&'r [u8], Broken> {
        match &mut self.next {
            Next::Data { left, is_chunk } => {
                let room = BODY_MAX_BYTES - self.text.len();
                let taken = received.len().min(room).min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.text.extend_from_slice(&received[..taken]);
                *left -= taken as u64;
                if *left == 0 {
                    self.next = if *is_chunk { Next::ChunkEnd { has_return: false } } else { Next::Nothing };
                }
                Ok(&received[taken..])
            }
            Next::ChunkLine(line) => {
                let (byte, rest) = (received[0], &received[1..]);
                if byte == b'\n' {
                    self.next = match chunk_size(line).ok_or(Broken)? {
                        // Trailers do not matter.
                        0 => Next::Nothing,
                        left => Next::Data { left, is_chunk: true },
                    };
                } else if line.len() == CHUNK_LINE_MAX_BYTES {
                    return Err(Broken);
                } else {
                    line.push(byte);
                }
                Ok(rest)
            }
            Next::ChunkEnd { has_return } => match received[0] {
                b'\r' if !*has_return => {
                    *has_return = true;
                    Ok(&received[1..])
                }
                b'\n' => {
                    self.next = Next::ChunkLine(Vec::new());
                    Ok(&received[1..])
                }
                _ => Err(Broken),
            },
            Next::Nothing => Ok(&[]),
        }
    }
}

/// Hexadecimal digits, then optional extensions (RFC 9112, 7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| matches!(byte, b';' | b'\r' | b' ' | b'\t')).unwrap_or(line.len());
    let digits = std::str::from_utf8(&line[..end]).ok()?;
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: &[u8] = b"4\r\nhell\r\n1;a=b\r\no\r\n0\r\nTrailer: x\r\n\r\nnext";

    #[test]
    fn the_framing_is_removed_wherever_the_pieces_end() {
        for (framing, received, text) in [
            (Framing::Length(5), &b"hello and more"[..], &b"hello"[..]),
            (Framing::Length(0), b"more", b""),
            (Framing::Chunked, CHUNKED, b"hello"),
            (Framing::Chunked, b"5\nhello\n0\n\n", b"hello"),
        ] {
            for cut in 0..received.len() {
                let mut body = Body::new(framing);
                body.push(&received[..cut]).unwrap();
                body.push(&received[cut..]).unwrap();

                assert_eq!((body.text(), body.is_complete()), (text, true), "{framing:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_body_without_a_length_goes_on_until_the_limit() {
        let mut body = Body::new(Framing::UntilClosed);
        body.push(&vec![b'x'; BODY_MAX_BYTES - 1]).unwrap();
        assert!(!body.is_complete());

        body.push(b"yz").unwrap();

        assert!(body.is_complete() && body.text().ends_with(b"xy"));
    }

    #[test]
    fn the_framing_of_chunks_is_limited_too() {
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(200));
        let mut body = Body::new(Framing::Chunked);
        for _ in 0..FRAMED_MAX_BYTES / chunk.len() + 1 {
            body.push(chunk.as_bytes()).unwrap();
        }

        assert!(body.is_complete() && body.text().len() < BODY_MAX_BYTES);
    }

    #[test]
    fn chunks_that_are_none_are_refused() {
        for wrong in ["x\r\n", "\r\n", "-1\r\n", "11111111111111111\r\n", "2\r\nabc", "2\r\nab\r\r\n", &"0".repeat(300)] {
            assert_eq!(Body::new(Framing::Chunked).push(wrong.as_bytes()), Err(Broken), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise_or_keep_more_than_the_limit(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..50),
            length in any::<u64>(),
        ) {
            for framing in [Framing::Length(length), Framing::Chunked, Framing::UntilClosed] {
                let mut body = Body::new(framing);
                for piece in &pieces {
                    if body.push(piece).is_err() {
                        break;
                    }
                }
                prop_assert!(body.text().len() <= BODY_MAX_BYTES);
            }
        }
    }
}
