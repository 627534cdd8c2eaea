//! What a program prints: the beginning is kept, the rest is read and forgotten, so that the program is not held up.

use std::{io, os::fd::OwnedFd};

use tokio::{io::AsyncReadExt as _, net::unix::pipe::Receiver};

use crate::text::printable;

/// Maximum length of what is kept.
const KEPT_BYTES: usize = 4096;
/// Maximum number of characters of the line that is shown.
const LINE_MAX_CHARS: usize = 200;

pub struct Output {
    pipe: Receiver,
    kept: Vec<u8>,
}

impl Output {
    pub fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: Receiver::from_owned_fd(pipe)?, kept: Vec::new() })
    }

    /// Reads. Never ends by itself.
    pub async fn read_on(&mut self) {
        let mut buffer = [0; KEPT_BYTES];
        while let Ok(count @ 1..) = self.pipe.read(&mut buffer).await {
            keep(&mut self.kept, &buffer[..count]);
        }
        std::future::pending().await
    }

    /// Reads what is there already.
    pub fn read_rest(&mut self) {
        let mut buffer = [0; KEPT_BYTES];
        while self.kept.len() < KEPT_BYTES {
            match self.pipe.try_read(&mut buffer) {
                Ok(count @ 1..) => keep(&mut self.kept, &buffer[..count]),
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// The first line that is not empty.
    pub fn first_line(&self) -> String {
        first_line(&self.kept)
    }
}

pub fn keep(kept: &mut Vec<u8>, printed: &[u8]) {
    let room = KEPT_BYTES - kept.len();
    kept.extend_from_slice(&printed[..printed.len().min(room)]);
}

pub fn first_line(kept: &[u8]) -> String {
    let text = String::from_utf8_lossy(kept);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut characters = line.chars();
    let shown: String = characters.by_ref().take(LINE_MAX_CHARS).collect();
    let rest = if characters.next().is_some() { "..." } else { "" };
    printable(&shown) + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_line_is_short_and_cannot_control_the_terminal() {
        assert_eq!(first_line(b"\r\n  lag: 3 s\t(ok) \nmore"), "lag: 3 s (ok)");
        assert_eq!(first_line(b"\x1b[2Jgone\xff"), "\u{fffd}[2Jgone\u{fffd}");
        assert_eq!(first_line(&[b'x'; LINE_MAX_CHARS + 1]), format!("{}...", "x".repeat(LINE_MAX_CHARS)));
        assert_eq!(first_line(b""), "");
    }

    proptest! {
        #[test]
        fn no_more_than_the_limit_is_kept(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4096), 0..4)) {
            let mut kept = Vec::new();
            pieces.iter().for_each(|piece| keep(&mut kept, piece));

            prop_assert_eq!(kept.len(), pieces.concat().len().min(KEPT_BYTES));
            prop_assert!(first_line(&kept).chars().count() <= LINE_MAX_CHARS + 3);
        }
    }
}
