//! Servers that answer as no server should, as threads in a backend's namespace.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use super::{Namespace, echo::Server};

/// From one byte to the next.
const DRIP: Duration = Duration::from_secs(1);

/// What each connection gets. Nothing is read.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Nothing.
    Silence,
    /// This, and then no end.
    Once(&'static [u8]),
    /// The first once, and then the second without end.
    Endless(&'static [u8], &'static [u8]),
    /// This again and again, a byte each second.
    Dripping(&'static [u8]),
}

/// Starts a server.
pub fn start(namespace: &Namespace, address: SocketAddr, answer: Answer) -> Result<Server> {
    let open = move || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket.listen(64)?)
    };
    Server::start(namespace, open, move |listener| async move {
        loop {
            let (stream, _) = listener.accept().await?;
            // The client closes.
            tokio::spawn(async move { reply(stream, answer).await.err() });
        }
    })
}

async fn reply(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    match answer {
        Answer::Silence => {}
        Answer::Once(bytes) => stream.write_all(bytes).await?,
        Answer::Endless(first, rest) => {
            stream.write_all(first).await?;
            let many = rest.repeat(1024);
            loop {
                stream.write_all(&many).await?;
            }
        }
        Answer::Dripping(bytes) => {
            for byte in bytes.iter().cycle() {
                stream.write_all(&[*byte]).await?;
                sleep(DRIP).await;
            }
        }
    }
    std::future::pending().await
}
