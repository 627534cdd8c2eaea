//! Servers that say everything back, as threads in a backend's namespace.

use std::{future::Future, net::SocketAddr, sync::mpsc, thread::JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    io,
    net::{TcpListener, TcpSocket, UdpSocket},
    runtime,
    sync::oneshot,
};

use super::Namespace;

/// A server in a thread. Dropping it closes all its sockets.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Says every byte back, on any number of connections.
pub fn tcp_echo(namespace: &Namespace, address: SocketAddr) -> Result<Server> {
    Server::start(
        namespace,
        move || listen(address),
        async |listener| {
            loop {
                let (mut stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    // Its end is the client's business, who notices it.
                    let _ = io::copy(&mut reader, &mut writer).await;
                });
            }
        },
    )
}

/// Answers every datagram with `NAME: ` and what it said.
pub fn udp_echo(namespace: &Namespace, address: SocketAddr, name: &str) -> Result<Server> {
    let name = name.to_owned();
    let bind = move || Ok(std::net::UdpSocket::bind(address)?);
    Server::start(
        namespace,
        move || bind().and_then(into_tokio),
        async move |socket| {
            const LARGEST: usize = 65_535;
            let mut datagram = vec![0; LARGEST];
            loop {
                let (len, client) = socket.recv_from(&mut datagram).await?;
                let answer = [name.as_bytes(), b": ", &datagram[..len]].concat();
                socket.send_to(&answer, client).await?;
            }
        },
    )
}

impl Server {
    /// Runs `serve` on what `open` made, until dropped; returns when `open` has returned.
    fn start<S: Send + 'static, F: Future<Output = Result<()>>>(
        namespace: &Namespace,
        open: impl FnOnce() -> Result<S> + Send + 'static,
        serve: impl FnOnce(S) -> F + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (opened, is_open) = mpsc::sync_channel(1);
        let thread = namespace.spawn(move || {
            runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let socket = open()?;
                opened.send(()).context("nobody waits for the server")?;
                tokio::select! {
                    ended = serve(socket) => ended,
                    _ = stopped => Ok(()),
                }
            })
        });
        if is_open.recv().is_err() {
            let ended = thread.join().map_err(|_| anyhow!("the server panicked"))?;
            return Err(ended.err().unwrap_or_else(|| anyhow!("the server ended before it began")));
        }
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("an echo server ended: {error:#}");
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    const BACKLOG: u32 = 16_384;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("bind {address}"))?;
    Ok(socket.listen(BACKLOG)?)
}

fn into_tokio(socket: std::net::UdpSocket) -> Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket)?)
}
