//! A connection whose received bytes are inspected before a client of another crate sees them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What received bytes must be.
pub trait Inspector {
    /// An error ends the connection. The bytes are not delivered then.
    fn inspect(&mut self, received: &[u8]) -> io::Result<()>;
}

/// See the [module](self).
pub struct Inspected<S, I> {
    stream: S,
    inspector: I,
}

impl<S, I> Inspected<S, I> {
    pub const fn new(stream: S, inspector: I) -> Self {
        Self { stream, inspector }
    }
}

impl<S: AsyncRead + Unpin, I: Inspector + Unpin> AsyncRead for Inspected<S, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let verdict = self.inspector.inspect(&buf.filled()[before..]);
        if verdict.is_err() {
            buf.set_filled(before);
        }
        Poll::Ready(verdict)
    }
}

impl<S: AsyncWrite + Unpin, I: Unpin> AsyncWrite for Inspected<S, I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
