//! Accepts subscriptions of peers: TLS and hello, then the connection goes to the peer's [publisher](super::publisher).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use log::warn;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    occasionally::Occasionally,
    port::Refusals,
    session::{self, HANDSHAKE},
    tls::{self, Credentials},
    wire::Hello,
};
use crate::{api::listen::Pending, duration, spec::Peer, text::quote};

/// Handshakes at once, besides one for each peer. Anyone can begin some; each takes some memory for at most [`HANDSHAKE`].
const HANDSHAKES: usize = 16;
/// The pause after an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Interval of log lines about connections that are refused.
const REPORT: Duration = Duration::from_secs(10);
/// Interval of log lines about connections that are dropped unseen.
const OVERLOAD_REPORT: Duration = Duration::from_secs(1);

/// A peer that has subscribed.
#[derive(Debug)]
pub struct Arrival {
    pub stream: TlsStream<TcpStream>,
    pub hello: Hello,
    pub address: SocketAddr,
}

/// Accepts connections.
#[derive(Debug)]
pub struct Acceptor {
    pub credentials: Credentials,
    pub own_hello: watch::Receiver<Hello>,
    pub peers: Arc<[Peer]>,
    /// For each peer. One connection may wait there while another is served: at most two for each peer.
    pub arrivals: Vec<mpsc::Sender<Arrival>>,
    pub refusals: Refusals,
}

impl Acceptor {
    /// Runs forever.
    pub async fn run(mut self, listener: Pending) {
        let listener = listener.listener().await;
        let mut handshakes = FuturesUnordered::new();
        let (mut refused, mut dropped) = (Occasionally::each(REPORT), Occasionally::each(OVERLOAD_REPORT));
        loop {
            tokio::select! {
                Some((address, welcomed)) = handshakes.next() => {
                    if let Err(why) = self.pass_on(welcomed) {
                        self.refusals.count();
                        if let Some(connections) = refused.count() {
                            warn!(from:% = address, connections, why; "connection to [group] refused");
                        }
                    }
                }
                (stream, address) = accept(&listener) => {
                    if handshakes.len() < self.peers.len() + HANDSHAKES {
                        let welcome = self.welcome(stream, address);
                        handshakes.push(async move { (address, welcome.await) });
                    } else {
                        self.refusals.count();
                        if let Some(connections) = dropped.count() {
                            warn!(connections; "too many connections to [group] at once: some are dropped");
                        }
                    }
                }
            }
        }
    }

    /// The handshake of one connection, with the files and the hello as they are.
    fn welcome(
        &mut self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> impl Future<Output = Result<(usize, Arrival), String>> + use<> {
        let acceptor = self.credentials.acceptor();
        let (own_hello, peers) = (self.own_hello.borrow().clone(), Arc::clone(&self.peers));
        async move {
            let welcomed = timeout(HANDSHAKE, welcome(&acceptor?, stream, &peers, &own_hello)).await;
            let silent = |_| Err(format!("no handshake and hello within {}", duration::show(HANDSHAKE)));
            let (place, stream, hello) = welcomed.unwrap_or_else(silent)?;
            Ok((place, Arrival { stream, hello, address }))
        }
    }

    fn pass_on(&self, welcomed: Result<(usize, Arrival), String>) -> Result<(), String> {
        let (place, arrival) = welcomed?;
        let waiting = |_| format!("{} has two connections already", self.peers[place].node);
        self.arrivals[place].try_send(arrival).map_err(waiting)
    }
}

/// A connection, unless the listener fails. Then the next one may work.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                log::error!(error:%; "cannot accept connections to [group]: trying again");
                sleep(PAUSE).await;
            }
        }
    }
}

/// The place of the peer that has connected, once both have said hello.
async fn welcome(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    peers: &[Peer],
    own_hello: &Hello,
) -> Result<(usize, TlsStream<TcpStream>, Hello), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut stream = acceptor.accept(stream).await.map_err(|error| tls::of_io(&error))?;
    if !peers.iter().any(|peer| tls::is_for(&stream, &peer.node)) {
        return Err("its certificate is not for a peer".to_owned());
    }
    let hello = session::hear_hello(&mut stream).await?;
    let place = peers.iter().position(|peer| peer.node.eq_ignore_ascii_case(&hello.node));
    let place = place.filter(|place| tls::is_for(&stream, &peers[*place].node));
    let place = place.ok_or_else(|| {
        format!("it says that it is {}: its certificate is for another peer", quote(&hello.node))
    })?;
    session::say_hello(&mut stream, own_hello).await?;
    Ok((place, stream, hello))
}
