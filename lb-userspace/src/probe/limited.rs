//! A connection that delivers a limited number of bytes, for clients of other crates, which read messages as long as the
//! server announces.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a server may send during one probe, with everything around its answer.
pub const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// See the [module](self). A read may exceed the limit by what one read returns.
pub struct Limited<S> {
    stream: S,
    budget: Budget,
}

/// How many bytes may still come.
#[derive(Clone)]
pub struct Budget(Arc<AtomicUsize>);

#[derive(Debug, thiserror::Error)]
#[error("answer longer than {} KiB", ANSWER_MAX_BYTES / 1024)]
struct TooLong;

impl<S> Limited<S> {
    /// The first probe may begin.
    pub fn new(stream: S) -> (Self, Budget) {
        let budget = Budget(Arc::new(AtomicUsize::new(ANSWER_MAX_BYTES)));
        (Self { stream, budget: budget.clone() }, budget)
    }
}

impl Budget {
    /// Another probe begins.
    pub fn renew(&self) {
        self.0.store(ANSWER_MAX_BYTES, Ordering::Relaxed);
    }

    fn spend(&self, count: usize) -> io::Result<()> {
        let left =
            self.0.load(Ordering::Relaxed).checked_sub(count).ok_or_else(|| io::Error::other(TooLong))?;
        self.0.store(left, Ordering::Relaxed);
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let spent = self.budget.spend(buf.filled().len() - before);
        if spent.is_err() {
            buf.set_filled(before);
        }
        Poll::Ready(spent)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn each_probe_may_read_as_much() {
        let (mut endless, budget) = Limited::new(tokio::io::repeat(b'x'));
        let mut answer = vec![0; ANSWER_MAX_BYTES];

        for _ in 0..3 {
            endless.read_exact(&mut answer).await.unwrap();
            assert_eq!(endless.read_u8().await.unwrap_err().to_string(), "answer longer than 64 KiB");
            budget.renew();
        }
    }
}
