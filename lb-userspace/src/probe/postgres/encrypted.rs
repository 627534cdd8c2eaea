//! TLS of a connection to PostgreSQL, which begins when the server has agreed to it (SSLRequest).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::SystemTime,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::client;

use super::{
    super::{
        Fault,
        tls_client::{self, TlsClient, TlsSession},
    },
    link::Stream,
};

/// Begins TLS.
pub struct Upgrade<'u> {
    pub client: &'u TlsClient,
    pub session: &'u mut TlsSession,
    pub address: SocketAddr,
    /// Where the end of the server's certificate is kept.
    pub certificate_ends: &'u mut Option<SystemTime>,
}

/// A connection over TLS.
pub struct Encrypted(client::TlsStream<Stream>);

/// The handshake has failed.
#[derive(Debug, thiserror::Error)]
#[error("TLS handshake failed")]
pub struct HandshakeFailed(pub Fault);

impl<'u> TlsConnect<Stream> for Upgrade<'u> {
    type Stream = Encrypted;
    type Error = HandshakeFailed;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted, HandshakeFailed>> + Send + 'u>>;

    fn connect(self, stream: Stream) -> Self::Future {
        Box::pin(async move {
            let handshake = self.client.handshake(self.session, stream, self.address);
            let stream = handshake.await.map_err(HandshakeFailed)?;
            *self.certificate_ends = tls_client::certificate_ends(&stream);
            Ok(Encrypted(stream))
        })
    }
}

impl TlsStream for Encrypted {
    /// The certificate says who the server is.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
