//! Servers that answer as no server should, as threads in a backend's namespace.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};

use super::{Namespace, echo::Server};

/// From one byte to the next.
const DRIP: Duration = Duration::from_secs(1);

/// What a [`two_faced_redis`] says in turn.
const ROLES: [&str; 2] = [
    "role:master\r\nmaster_repl_offset:1234",
    "role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:0\r\nslave_repl_offset:1234",
];

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
    Server::start(
        namespace,
        move || listen(address),
        move |listener| async move {
            loop {
                let (stream, _) = listener.accept().await?;
                // The client closes.
                tokio::spawn(async move { reply(stream, answer).await.err() });
            }
        },
    )
}

/// Starts a Redis that says in turn that it is a primary and a replica. Counts what it has said.
pub fn two_faced_redis(namespace: &Namespace, address: SocketAddr) -> Result<(Server, Arc<AtomicUsize>)> {
    let said = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&said);
    let server = Server::start(
        namespace,
        move || listen(address),
        move |listener| async move {
            loop {
                let (stream, _) = listener.accept().await?;
                let said = Arc::clone(&counter);
                tokio::spawn(async move { say_both(stream, &said).await.err() });
            }
        },
    )?;
    Ok((server, said))
}

/// Answers the last line of each command.
async fn say_both(mut stream: TcpStream, said: &AtomicUsize) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        match line.as_str() {
            "PING" => writer.write_all(b"+PONG\r\n").await?,
            "replication" => {
                let role = ROLES[said.fetch_add(1, Ordering::Relaxed) % ROLES.len()];
                let text = format!("{role}\r\nmaster_replid:{}\r\n", "5".repeat(40));
                writer.write_all(format!("${}\r\n{text}\r\n", text.len()).as_bytes()).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(64)?)
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
