//! The two ends of a subscription: hellos, then frames one way and acknowledgements the other.
//!
//! ```text
//!   publisher (accepted, TLS server)           subscriber (dialled, TLS client)
//!             ◀──────────────── hello ─────────
//!             ───────── hello ────────────────▶
//!   outbox ──▶ frame, frame, ... ─────────────▶ ──▶ Received
//!   Acknowledged ◀── ◀─────── acknowledged ────
//! ```
//!
//! The publisher sends something each [`HEARTBEAT`], and the subscriber acknowledges every frame. So each side hears from
//! the other, and ends the connection after [`SILENCE`]: a node that is gone, or too slow, is noticed by both.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, split},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    port::{Input, OUTBOX, PeerNumber},
    tls,
    wire::{self, BadFrame, Frame, Hello, VERSION},
};
use crate::{duration, text::quote};

/// For connecting, TLS and both hellos.
pub const HANDSHAKE: Duration = Duration::from_secs(3);
/// The publisher is never silent for longer.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// A peer that is silent for longer may be out of reach: three times [`HEARTBEAT`], so that one late frame does no harm.
pub const HEARD: Duration = Duration::from_millis(750);
/// Silence that ends a connection. VRRP with its default interval gives a node up after about as long (RFC 9568, 6.1), and
/// TCP has repeated a lost segment several times by then.
pub const SILENCE: Duration = Duration::from_secs(3);

/// A connection, and whom to tell what it does.
#[derive(Clone, Debug)]
pub struct Session {
    pub peer: PeerNumber,
    /// The peer's name.
    pub node: String,
    pub connection: u64,
    pub inputs: mpsc::Sender<Input>,
}

/// Receives the flows of a peer until the connection ends, and returns why it did.
pub async fn subscribe(stream: impl AsyncRead + AsyncWrite, session: &Session) -> String {
    let Err(why) = receive_frames(stream, session).await;
    why
}

/// Sends the flows of this node to a peer until the connection ends, and returns why it did.
pub async fn publish(
    stream: impl AsyncRead + AsyncWrite,
    session: &Session,
    frames: mpsc::Receiver<Arc<Frame>>,
    hello: watch::Receiver<Hello>,
) -> String {
    let (reader, writer) = split(stream);
    // Both at once: while frames wait for the peer, its acknowledgements are read, so that it never waits for that.
    let Err(why) = tokio::select! {
        ended = send_frames(writer, frames, hello) => ended,
        ended = receive_acknowledgements(reader, session) => ended,
    };
    why
}

async fn receive_frames(
    stream: impl AsyncRead + AsyncWrite,
    session: &Session,
) -> Result<Infallible, String> {
    let Session { peer, node: _, connection, ref inputs } = *session;
    let (reader, mut writer) = split(stream);
    let mut reader = BufReader::new(reader);
    loop {
        let frame = hear(&mut reader).await?;
        if let Some(hello) = &frame.hello {
            session.is_of_peer(hello)?;
        }
        let acknowledgement = Frame { acknowledged: frame.sequence, ..Frame::default() };
        tell(inputs, Input::Received { peer, connection, frame }).await?;
        send(&mut writer, &[acknowledgement]).await?;
    }
}

async fn receive_acknowledgements(
    reader: impl AsyncRead + Unpin,
    session: &Session,
) -> Result<Infallible, String> {
    let Session { peer, node: _, connection, ref inputs } = *session;
    let mut reader = BufReader::new(reader);
    let mut acknowledged = 0;
    loop {
        let sequence = hear(&mut reader).await?.acknowledged;
        if sequence > acknowledged {
            acknowledged = sequence;
            tell(inputs, Input::Acknowledged { peer, connection, sequence }).await?;
        }
    }
}

async fn send_frames(
    mut writer: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Arc<Frame>>,
    mut hello: watch::Receiver<Hello>,
) -> Result<Infallible, String> {
    // The sequence number of the frames that this side adds: they are acknowledged as the last one of the exchange.
    let mut sequence = 0;
    let mut waiting = Vec::new();
    loop {
        let added = tokio::select! {
            count = frames.recv_many(&mut waiting, OUTBOX) => match count {
                0 => return Err("this node has ended it".to_owned()),
                _ => None,
            },
            Ok(()) = hello.changed() => Some(stamped(&hello.borrow_and_update())),
            () = sleep(HEARTBEAT) => None,
        };
        if waiting.is_empty() {
            waiting.push(Arc::new(Frame { hello: added, sequence, ..Frame::default() }));
        }
        send(&mut writer, waiting.iter().map(AsRef::as_ref)).await?;
        sequence = waiting.last().map_or(sequence, |frame| frame.sequence);
        waiting.clear();
    }
}

/// The first frame of this side.
pub async fn say_hello(stream: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> Result<(), String> {
    send(stream, &[Frame { hello: Some(stamped(hello)), ..Frame::default() }]).await
}

/// The first frame of the other side.
pub async fn hear_hello(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, String> {
    hear(stream).await?.hello.ok_or_else(|| "its first frame has no hello".to_owned())
}

impl Session {
    /// The certificate is for the peer. Is the hello from it, too?
    pub fn is_of_peer(&self, hello: &Hello) -> Result<(), String> {
        if hello.node.eq_ignore_ascii_case(&self.node) {
            return Ok(());
        }
        Err(format!("it says that it is {}, not {}", quote(&hello.node), self.node))
    }
}

/// An error if the exchange has ended, as at the end of the daemon.
pub async fn tell(inputs: &mpsc::Sender<Input>, input: Input) -> Result<(), String> {
    inputs.send(input).await.map_err(|_| "this node is stopping".to_owned())
}

fn stamped(hello: &Hello) -> Hello {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Hello { version: VERSION, unix_ms, ..hello.clone() }
}

async fn hear(reader: &mut (impl AsyncRead + Unpin)) -> Result<Frame, String> {
    match timeout(SILENCE, wire::read(reader)).await {
        Ok(frame) => frame.map_err(words),
        Err(_) => Err(format!("silent for {}", duration::show(SILENCE))),
    }
}

async fn send<'f>(
    writer: &mut (impl AsyncWrite + Unpin),
    frames: impl IntoIterator<Item = &'f Frame>,
) -> Result<(), String> {
    let sending = async {
        for frame in frames {
            wire::write(writer, frame).await?;
        }
        Ok(writer.flush().await?)
    };
    match timeout(SILENCE, sending).await {
        Ok(sent) => sent.map_err(words),
        Err(_) => Err(format!("it takes nothing for {}", duration::show(SILENCE))),
    }
}

fn words(error: BadFrame) -> String {
    match error {
        BadFrame::Io(error) => tls::of_io(&error),
        BadFrame::TooLong(_)
        | BadFrame::TooMany
        | BadFrame::LongName
        | BadFrame::Undecodable(_)
        | BadFrame::NoVersion => {
            format!("it sent {error}")
        }
    }
}

#[cfg(test)]
mod tests;
