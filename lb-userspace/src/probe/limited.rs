//! A limit of the bytes that a connection delivers, for clients of other crates, which read messages as long as the server
//! announces.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::inspected::{Inspected, Inspector};

/// What a server may send during one probe, with everything around its answer.
pub const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// A limited connection. A read may exceed the limit by what one read returns.
pub type Limited<S> = Inspected<S, Budget>;

/// What a server may send over one connection. Clients keep some of what they receive, such as parameters of the session.
const CONNECTION_MAX_BYTES: usize = 1024 * 1024;

/// How many bytes may still come.
#[derive(Clone)]
pub struct Budget(Arc<Counts>);

struct Counts {
    left: AtomicUsize,
    /// Since the beginning of the connection.
    received: AtomicUsize,
}

#[derive(Debug, thiserror::Error)]
#[error("answer longer than {} KiB", ANSWER_MAX_BYTES / 1024)]
struct TooLong;

/// The first probe may begin.
pub fn limited<S>(stream: S) -> (Limited<S>, Budget) {
    let counts = Counts { left: AtomicUsize::new(ANSWER_MAX_BYTES), received: AtomicUsize::new(0) };
    let budget = Budget(Arc::new(counts));
    (Inspected::new(stream, budget.clone()), budget)
}

impl Budget {
    /// Another probe begins.
    pub fn renew(&self) {
        self.0.left.store(ANSWER_MAX_BYTES, Ordering::Relaxed);
    }

    /// Has the connection delivered as much as one may?
    pub fn is_used_up(&self) -> bool {
        self.0.received.load(Ordering::Relaxed) >= CONNECTION_MAX_BYTES
    }
}

impl Inspector for Budget {
    fn inspect(&mut self, received: &[u8]) -> io::Result<()> {
        self.0.received.fetch_add(received.len(), Ordering::Relaxed);
        let left = self.0.left.load(Ordering::Relaxed).checked_sub(received.len());
        self.0.left.store(left.ok_or_else(|| io::Error::other(TooLong))?, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn each_probe_may_read_as_much() {
        let (mut endless, budget) = limited(tokio::io::repeat(b'x'));
        let mut answer = vec![0; ANSWER_MAX_BYTES];

        for _ in 0..CONNECTION_MAX_BYTES / ANSWER_MAX_BYTES {
            assert!(!budget.is_used_up());
            endless.read_exact(&mut answer).await.unwrap();
            assert_eq!(endless.read_u8().await.unwrap_err().to_string(), "answer longer than 64 KiB");
            budget.renew();
        }
        assert!(budget.is_used_up());
    }
}
