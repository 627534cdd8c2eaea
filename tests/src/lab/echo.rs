//! Echo servers: as threads in a backend's namespace, or as processes there.

use std::{
    future::Future,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::mpsc,
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use lb_common::net::Protocol;
use tokio::{
    io,
    net::{TcpListener, TcpSocket, UdpSocket},
    runtime,
    sync::oneshot,
};

use super::{Backend, Namespace};

/// The largest datagram.
const LARGEST: usize = 65_535;
/// What the process prints when its socket is open.
const READY: &str = "serving";

/// A server in a thread. Dropping it closes all its sockets.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Echoes every byte, on any number of connections.
pub fn tcp_echo(namespace: &Namespace, address: SocketAddr) -> Result<Server> {
    Server::start(namespace, move || listen(address), serve_tcp)
}

/// Answers every datagram with `NAME: ` and its contents.
pub fn udp_echo(namespace: &Namespace, address: SocketAddr, name: &str) -> Result<Server> {
    let name = name.to_owned();
    Server::start(namespace, move || bind(address), |socket| serve_udp(socket, name))
}

/// Starts `LAB echo` on a host: an echo server in a process of its own, which runs as long as the network exists, and
/// has its own limit of open files.
pub fn process(lab: &Path, protocol: Protocol, backend: &Backend, address: SocketAddr) -> Result<()> {
    let Backend { name, namespace, .. } = backend;
    let protocol = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let mut command = namespace.command(lab);
    command.args(["echo", protocol, name, &address.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = command.spawn().context("start an echo server")?;

    let mut first_line = String::new();
    let stdout = process.stdout.take().context("the echo server has no output")?;
    BufReader::new(stdout).read_line(&mut first_line)?;
    ensure!(first_line.trim_end() == READY, "the echo server on {namespace} does not serve");
    Ok(())
}

/// `lab echo`: serves until killed.
pub fn serve(protocol: Protocol, name: String, address: SocketAddr) -> Result<()> {
    super::allow_many_sockets()?;
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        match protocol {
            Protocol::Tcp => {
                let listener = listen(address)?;
                println!("{READY}");
                serve_tcp(listener).await
            }
            Protocol::Udp => {
                let socket = bind(address)?;
                println!("{READY}");
                serve_udp(socket, name).await
            }
        }
    })
}

impl Server {
    /// Runs `serve` on what `open` made, until dropped; returns when `open` has returned.
    pub fn start<S: Send + 'static, F: Future<Output = Result<()>>>(
        namespace: &Namespace,
        open: impl FnOnce() -> Result<S> + Send + 'static,
        serve: impl FnOnce(S) -> F + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (opened, is_open) = mpsc::sync_channel(1);
        let thread = namespace.spawn(move || {
            runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let socket = open()?;
                opened.send(()).context("the receiver of the server is gone")?;
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

async fn serve_tcp(listener: TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            // Errors are left to the client, which notices them.
            let _ = io::copy(&mut reader, &mut writer).await;
        });
    }
}

async fn serve_udp(socket: UdpSocket, name: String) -> Result<()> {
    let mut datagram = vec![0; LARGEST];
    loop {
        let (len, client) = socket.recv_from(&mut datagram).await?;
        let answer = [name.as_bytes(), b": ", &datagram[..len]].concat();
        socket.send_to(&answer, client).await?;
    }
}

/// Listens at an address, with a long queue.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    const BACKLOG: u32 = 16_384;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("bind {address}"))?;
    Ok(socket.listen(BACKLOG)?)
}

fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket)?)
}
