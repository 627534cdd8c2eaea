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

/// How many bytes may still come.
#[derive(Clone)]
pub struct Budget(Arc<AtomicUsize>);

#[derive(Debug, thiserror::Error)]
#[error("answer longer than {} KiB", ANSWER_MAX_BYTES / 1024)]
struct TooLong;

/// The first probe may begin.
pub fn limited<S>(stream: S) -> (Limited<S>, Budget) {
    let budget = Budget(Arc::new(AtomicUsize::new(ANSWER_MAX_BYTES)));
    (Inspected::new(stream, budget.clone()), budget)
}

impl Budget {
    /// Another probe begins.
    pub fn renew(&self) {
        self.0.store(ANSWER_MAX_BYTES, Ordering::Relaxed);
    }
}

impl Inspector for Budget {
    fn inspect(&mut self, received: &[u8]) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed).checked_sub(received.len());
        self.0.store(left.ok_or_else(|| io::Error::other(TooLong))?, Ordering::Relaxed);
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

        for _ in 0..3 {
            endless.read_exact(&mut answer).await.unwrap();
            assert_eq!(endless.read_u8().await.unwrap_err().to_string(), "answer longer than 64 KiB");
            budget.renew();
        }
    }
}
