//! Subscribes to the flows of one peer, and connects again when the connection ends.

use std::{io, net::SocketAddr, time::Duration};

use log::{info, warn};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;

use super::{
    port::{Connections, Input},
    session::{self, HANDSHAKE, Session},
    tls::Credentials,
    wire::Hello,
};
use crate::duration;

/// The pause after the first failure. It doubles with each further one.
pub const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// For TCP alone: it repeats a lost SYN after 1 s, and would only do so again 2 s later. An attempt of 1 s would often end just
/// before the peer's MAC address is known, which is asked for once a second. So a peer that returns is connected within 1.25 s,
/// and the time of a handshake.
const CONNECT: Duration = Duration::from_secs(2);

/// Connects to one peer.
#[derive(Debug)]
pub struct Dialer {
    pub credentials: Credentials,
    /// The address that this node connects from.
    pub from: SocketAddr,
    pub address: SocketAddr,
    pub own_hello: watch::Receiver<Hello>,
    pub connections: Connections,
    /// Its connection number is that of the last attempt.
    pub session: Session,
}

impl Dialer {
    /// Runs until the exchange ends.
    pub async fn run(mut self) {
        let (mut pause, mut is_reported) = (PAUSE, false);
        loop {
            self.session.connection = self.connections.number();
            let opened = match timeout(HANDSHAKE, self.open()).await {
                Ok(opened) => opened,
                Err(_) => Err(format!("no handshake and hello within {}", duration::show(HANDSHAKE))),
            };
            let why = match opened {
                Ok((stream, hello)) => {
                    (pause, is_reported) = (PAUSE, false);
                    self.subscribe(stream, hello).await
                }
                Err(why) => why,
            };
            let Session { peer, ref node, connection, ref inputs } = self.session;
            // A peer that stays away is reported once.
            if !std::mem::replace(&mut is_reported, true) {
                warn!(peer = node, address:% = self.address, why; "peer lost: connecting again");
            }
            if session::tell(inputs, Input::Disconnected { peer, connection, why }).await.is_err() {
                return;
            }
            sleep(pause).await;
            pause = PAUSE_MAX.min(2 * pause);
        }
    }

    async fn subscribe(&self, stream: TlsStream<TcpStream>, hello: Hello) -> String {
        let Session { peer, ref node, connection, ref inputs } = self.session;
        info!(peer = node, address:% = self.address; "peer connected");
        match session::tell(inputs, Input::Connected { peer, connection, hello }).await {
            Ok(()) => session::subscribe(stream, &self.session).await,
            Err(why) => why,
        }
    }

    async fn open(&mut self) -> Result<(TlsStream<TcpStream>, Hello), String> {
        let stream = match timeout(CONNECT, connect(self.from, self.address)).await {
            Ok(connected) => connected.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("no connection within {}", duration::show(CONNECT))),
        };
        let mut stream = self.credentials.connect(stream, &self.session.node).await?;
        let own = self.own_hello.borrow().clone();
        session::say_hello(&mut stream, &own).await?;
        let hello = session::hear_hello(&mut stream).await?;
        self.session.is_of_peer(&hello)?;
        Ok((stream, hello))
    }
}

/// Connects from the address where this node listens, if it has one of the same family: others might move to another node.
async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if from.is_ipv4() == to.is_ipv4() && !from.ip().is_unspecified() {
        // `connect` chooses the port.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(SocketAddr::new(from.ip(), 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
