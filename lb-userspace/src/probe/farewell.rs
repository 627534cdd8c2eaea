//! The end of a probe's connection.
//!
//! What the server still sends is read for a moment: a socket that is closed with unread data sends a reset, which many
//! servers log as an error.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, sink},
    time::timeout,
};

/// At most this much is read, for at most this time.
const MAX_BYTES: u64 = 64 * 1024;
pub(super) const MAX_TIME: Duration = Duration::from_millis(50);

/// Reads until the server closes, for servers that close by themselves.
pub(super) async fn read_out<S: AsyncRead + Unpin>(stream: S) {
    // An error says nothing about the backend any more: the result is known.
    let _ = timeout(MAX_TIME, copy(&mut stream.take(MAX_BYTES), &mut sink())).await;
}

/// Closes this side, and reads until the server has closed, too.
pub(super) async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let closing = async {
        let _ = stream.shutdown().await;
        let _ = copy(&mut stream.take(MAX_BYTES), &mut sink()).await;
    };
    let _ = timeout(MAX_TIME, closing).await;
}
