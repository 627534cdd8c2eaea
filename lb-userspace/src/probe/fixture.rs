//! For the tests of check types: servers on loopback that answer well, badly, not at all and endlessly, and probes of them.

pub mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
    time::sleep,
};

use super::{Probe, ProbeOutcome, Prober};
use crate::{
    event::{ProbeResult, Target},
    health::probe_once,
    spec::{BackendName, HealthCheck, parse},
};

/// Much longer than any answer takes on loopback.
pub const AMPLE: Duration = Duration::from_secs(20);

/// A backend on loopback that does one thing with each connection.
pub struct Backend {
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Backend {
    pub async fn new<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { address, accepting }
    }

    /// Sends this and closes.
    pub async fn answering(answer: Vec<u8>) -> Self {
        Self::new(move |mut stream| {
            let answer = answer.clone();
            async move {
                read_head(&mut stream).await;
                // The probe may have closed before all is written.
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                drain(&mut stream).await;
            }
        })
        .await
    }

    /// Sends this and resets the connection.
    pub async fn resetting(answer: &'static str) -> Self {
        Self::new(async move |mut stream: TcpStream| {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            stream.set_zero_linger().unwrap();
        })
        .await
    }

    /// Answers before reading anything, and closes, which resets a connection with unread data.
    pub async fn hasty(answer: &'static str) -> Self {
        Self::new(async move |mut stream: TcpStream| {
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.readable().await;
        })
        .await
    }

    /// Sends this and keeps the connection open.
    pub async fn held_open(answer: &'static str) -> Self {
        Self::new(async move |mut stream: TcpStream| {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            drain(&mut stream).await;
        })
        .await
    }

    /// Sends `first`, then `rest` repeatedly, as fast as it is read.
    pub async fn repeating(first: &'static [u8], rest: &'static [u8]) -> Self {
        Self::new(async move |mut stream: TcpStream| {
            read_head(&mut stream).await;
            let _ = stream.write_all(first).await;
            while stream.write_all(rest).await.is_ok() {}
        })
        .await
    }

    /// Sends `first`, then `drop` every few milliseconds.
    pub async fn dripping(first: &'static str, drop: &'static str) -> Self {
        Self::new(async move |mut stream: TcpStream| {
            read_head(&mut stream).await;
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(drop.as_bytes()).await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A backend on loopback that answers datagrams.
pub struct UdpBackend {
    pub address: SocketAddr,
    answering: JoinHandle<()>,
    last_peer: Arc<Mutex<Option<SocketAddr>>>,
}

impl UdpBackend {
    /// Answers each datagram with the datagrams that this returns.
    pub async fn new(answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let last_peer = Arc::new(Mutex::new(None));
        let peers = Arc::clone(&last_peer);
        let answering = tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                *peers.lock().unwrap() = Some(peer);
                for answer in answers(&buffer[..length]) {
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        Self { address, answering, last_peer }
    }

    /// Answers from another port.
    pub async fn answering_from_elsewhere(answer: &'static [u8]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 1024]).await {
                elsewhere.send_to(answer, peer).await.unwrap();
            }
        });
        Self { address, answering, last_peer: Arc::default() }
    }

    /// Where the last datagram came from.
    pub fn last_peer(&self) -> Option<SocketAddr> {
        *self.last_peer.lock().unwrap()
    }

    /// Closes the socket. Returns its address, which refuses from then on.
    pub async fn close(mut self) -> SocketAddr {
        self.answering.abort();
        let _ = (&mut self.answering).await;
        self.address
    }
}

impl Drop for UdpBackend {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

pub async fn drain(stream: &mut TcpStream) {
    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
}

/// An address whose listener has just been closed.
pub async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Probes once, as a service with these keys in its check.
pub async fn probe_as(address: SocketAddr, keys: &str) -> ProbeResult {
    probe_within(address, configured(keys), AMPLE).await
}

/// Probes once, with this timeout.
pub async fn probe_within(address: SocketAddr, probe: Probe, timeout: Duration) -> ProbeResult {
    probe_once(&target(address, probe, timeout)).await
}

/// The probe of a service with these keys in its check.
pub fn configured(keys: &str) -> Probe {
    let text = format!(
        "version = 1\n[exec]\nallow = true\n[[interface]]\nname = 'eth0'\n[[service]]\nname = 'web'\nmode = 'nat'\n\
         listen = ['192.0.2.10:80']\n[service.health]\n{keys}\n[[service.backend]]\nname = 'web-1'\n\
         address = '10.0.0.11:80'\n"
    );
    let spec = parse("xlb.toml", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    spec.services[0].health.clone().unwrap().probe
}

impl Probe {
    /// A prober of the only backend here.
    pub(crate) fn prober(&self) -> Prober {
        self.prober_of(&BackendName::new("web", "web-1"))
    }
}

pub fn target(address: SocketAddr, probe: Probe, timeout: Duration) -> Target {
    let interval = Duration::from_secs(1);
    let check = HealthCheck { probe, interval, timeout, rise: 2, fall: 3, port: None };
    Target { backend: BackendName::new("web", "web-1"), address, source: None, check, known: None }
}

/// The outcome and what is shown.
pub fn told(result: &ProbeResult) -> (ProbeOutcome, &str) {
    (result.outcome, &result.detail)
}
