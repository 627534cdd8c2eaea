//! Web servers whose health checks succeed and fail in turn.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    Namespace,
    echo::{Server, listen},
};

/// Serves HTTP at each of these addresses: 200 and 503 in turn, whatever is requested.
pub fn flapping(namespace: &Namespace, addresses: Vec<SocketAddr>) -> Result<Server> {
    let open = move || addresses.into_iter().map(listen).collect::<Result<Vec<_>>>();
    Server::start(namespace, open, async |listeners| {
        let servers: Vec<_> = listeners.into_iter().map(|it| tokio::spawn(serve(it))).collect();
        for server in servers {
            server.await??;
        }
        Ok(())
    })
}

async fn serve(listener: TcpListener) -> Result<()> {
    for answer in ["200 OK", "503 Service Unavailable"].iter().cycle() {
        let (mut stream, _) = listener.accept().await?;
        // An error is left to the client, which notices it.
        let _ = stream.read(&mut [0; 1024]).await;
        let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
    }
    Ok(())
}
