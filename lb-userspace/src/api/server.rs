//! Serves HTTP/1.1 to a limited number of connections, with one request and a time limit each.
//!
//! With one request per connection, a single timeout covers head, body and response, even if the client does not read.
//! Idle clients cannot occupy connections. Connecting again costs microseconds.

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    api::{
        handle::{ANSWER_TIMEOUT, ControllerHandle, PROBE_TIMEOUT},
        listen::Socket,
        routes,
    },
    duration,
};

/// Maximum number of connections. Others wait in the kernel's backlog.
pub const MAX_CONNECTIONS: u32 = 64;
/// From the first byte to the end of the request head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Lifetime of a connection: the slowest answer, and the time to transfer it.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for pending responses when the daemon stops.
pub const GRACE: Duration = Duration::from_secs(2);
/// Pause when no connection can be accepted (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(CONNECTION_TIMEOUT.as_secs() > ANSWER_TIMEOUT.as_secs() + PROBE_TIMEOUT.as_secs());

/// Serves the whole API until `shutdown`.
pub async fn serve_socket(
    socket: Socket,
    controller: ControllerHandle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    serve(&socket.listener, routes::socket(controller), shutdown).await;
}

/// Serves `/metrics`, `/livez` and `/readyz` until `shutdown`.
pub async fn serve_metrics(
    listener: TcpListener,
    controller: ControllerHandle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    serve(&listener, routes::metrics(controller), shutdown).await;
}

async fn serve(listener: &impl Accept, routes: Router, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        // The semaphore is never closed, so a permit is always obtained in the end.
        let Ok(place) = place else { break };
        match accepted {
            Ok(stream) => {
                let connection = serve_one(stream, routes.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                log::warn!(error:%; "cannot accept an API connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // All permits are free when no connection is left.
    if timeout(GRACE, places.acquire_many(MAX_CONNECTIONS)).await.is_err() {
        log::warn!("aborted API requests that were still running after {}", duration::show(GRACE));
    }
}

async fn serve_one(stream: impl AsyncRead + AsyncWrite + Unpin, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!(error:%; "an API client disconnected"),
        Err(_elapsed) => {
            log::debug!("an API connection timed out after {}", duration::show(CONNECTION_TIMEOUT))
        }
    }
}

/// What the two listeners share.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(TcpListener::accept(self).await?.0)
    }
}
