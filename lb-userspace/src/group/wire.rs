//! What nodes of a group send each other: frames, which are messages of Protocol Buffers after their length.
//!
//! ```text
//!   length (4 bytes, big-endian) | Frame        at most 64 KiB
//! ```
//!
//! A frame is decoded as a whole, and its flows one by one: a flow that cannot be right is skipped with a reason, and a
//! frame that cannot be decoded ends the connection. Fields that this version does not know are skipped, so that a later
//! version can add some. The numbers of the fields never change their meaning.

use std::io;

use lb_common::settings::PortPool;
use prost::{Enumeration, Message};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub use self::flow::Invalid;

mod flow;

/// The version of the format in [`Hello`]. Later ones differ only by fields that this one can do without.
pub const VERSION: u32 = 1;
/// Maximum size of an encoded frame.
pub const FRAME_MAX_BYTES: usize = 64 * 1024;
/// This number of flows, ended flows and digests together fits into a frame in any case.
pub const FRAME_ITEMS: usize = 512;
/// Maximum number of them in a frame of a peer: a later version may have smaller ones. It limits the memory of a frame that
/// was received.
const FRAME_MAX_ITEMS: usize = 4 * FRAME_ITEMS;

/// Maximum length of a service's name.
const NAME_MAX_BYTES: usize = 63;

/// What is sent at once.
#[derive(Clone, PartialEq, Message)]
pub struct Frame {
    /// In the first frame of each side, and again when it changes.
    #[prost(message, optional, tag = "1")]
    pub hello: Option<Hello>,
    /// Flows that begin, go on or have changed.
    #[prost(message, repeated, tag = "2")]
    pub flows: Vec<Flow>,
    /// Flows that have ended.
    #[prost(message, repeated, tag = "3")]
    pub ended: Vec<Flow>,
    /// Whether a round begins or ends with this frame.
    #[prost(enumeration = "Round", optional, tag = "4")]
    pub round: Option<i32>,
    /// Counts the frames of a connection. The subscriber acknowledges it.
    #[prost(uint64, tag = "5")]
    pub sequence: u64,
    /// From the subscriber: all frames up to this one have arrived.
    #[prost(uint64, tag = "6")]
    pub acknowledged: u64,
    /// The definitions of services, so that differences are noticed.
    #[prost(message, repeated, tag = "7")]
    pub services: Vec<ServiceDigest>,
    /// There are no services but these and those of the frames before.
    #[prost(bool, tag = "8")]
    pub services_end: bool,
}

/// A node introduces itself.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// At least 1.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Its name, as in its certificate.
    #[prost(string, tag = "2")]
    pub node: String,
    /// Of its data plane: another one has other flows.
    #[prost(fixed64, tag = "3")]
    pub epoch: u64,
    /// Its clock when it sent this.
    #[prost(uint64, tag = "4")]
    pub unix_ms: u64,
    /// A digest of its hash key, never the key.
    #[prost(fixed64, tag = "5")]
    pub hash_key: u64,
    /// The source ports from which it chooses.
    #[prost(message, optional, tag = "6")]
    pub source_ports: Option<SourcePorts>,
}

/// Two ranges.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SourcePorts {
    /// First port of the lower one.
    #[prost(uint32, tag = "1")]
    pub low_first: u32,
    /// Its number of ports.
    #[prost(uint32, tag = "2")]
    pub low_count: u32,
    /// First port of the higher one.
    #[prost(uint32, tag = "3")]
    pub high_first: u32,
    /// Its number of ports.
    #[prost(uint32, tag = "4")]
    pub high_count: u32,
}

impl From<PortPool> for SourcePorts {
    fn from(pool: PortPool) -> Self {
        Self {
            low_first: pool.low_first.into(),
            low_count: pool.low_count.into(),
            high_first: pool.high_first.into(),
            high_count: pool.high_count.into(),
        }
    }
}

impl SourcePorts {
    /// `None`: these are no ports.
    pub fn pool(self) -> Option<PortPool> {
        let number = |it: u32| u16::try_from(it).ok();
        Some(PortPool {
            low_first: number(self.low_first)?,
            low_count: number(self.low_count)?,
            high_first: number(self.high_first)?,
            high_count: number(self.high_count)?,
        })
    }
}

/// A flow as it was sent. Its values may be anything.
#[derive(Clone, PartialEq, Message)]
pub struct Flow {
    /// 6: TCP. 17: UDP.
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    /// The client's address: 4 or 16 bytes, as are the other addresses.
    #[prost(bytes = "vec", tag = "2")]
    pub client: Vec<u8>,
    /// The listen address that the client sent to.
    #[prost(bytes = "vec", tag = "3")]
    pub listen: Vec<u8>,
    /// Where requests are sent.
    #[prost(bytes = "vec", tag = "4")]
    pub backend: Vec<u8>,
    /// The source that the backend sees.
    #[prost(bytes = "vec", tag = "5")]
    pub source: Vec<u8>,
    /// 1 to 65535, as are the other ports.
    #[prost(uint32, tag = "6")]
    pub client_port: u32,
    /// Of the listen address.
    #[prost(uint32, tag = "7")]
    pub listen_port: u32,
    /// Of the backend.
    #[prost(uint32, tag = "8")]
    pub backend_port: u32,
    /// Of the source.
    #[prost(uint32, tag = "9")]
    pub source_port: u32,
    /// TCP: the sequence number of the backend's SYN-ACK, if it is known.
    #[prost(fixed32, optional, tag = "10")]
    pub answer: Option<u32>,
    /// Time since its last packet.
    #[prost(uint32, tag = "11")]
    pub idle_ms: u32,
    /// How a flow has ended: see [`Flow::ending`].
    #[prost(uint32, tag = "12")]
    pub ending: u32,
}

/// The definition of a service, in short.
#[derive(Clone, PartialEq, Message)]
pub struct ServiceDigest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// See [`super::digest`].
    #[prost(fixed64, tag = "2")]
    pub digest: u64,
    /// The same on two nodes if both compute the same backends for its flows: neither sends the other flows to these. 0: it
    /// computes none.
    #[prost(fixed64, tag = "3")]
    pub computation: u64,
}

/// All flows of a node, in several frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Round {
    /// Neither.
    None = 0,
    /// Begins with this frame.
    Begin = 1,
    /// Ends with this frame: what it did not mention has ended.
    End = 2,
}

/// A frame that ends the connection.
#[derive(Debug, thiserror::Error)]
pub enum BadFrame {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not read.
    #[error("a frame of {0} bytes, which is more than {FRAME_MAX_BYTES}")]
    TooLong(usize),
    /// It has more flows and services than this.
    #[error("a frame with more than {FRAME_MAX_ITEMS} flows and services")]
    TooMany,
    /// It is not a frame.
    #[error("a frame that cannot be decoded: {0}")]
    Undecodable(#[from] prost::DecodeError),
    /// A service has a longer name than a file can have.
    #[error("a frame with a service whose name has more than {NAME_MAX_BYTES} bytes")]
    LongName,
    /// It introduces a node of no version.
    #[error("a hello without a version")]
    NoVersion,
}

impl Frame {
    /// Decodes a frame without its length.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadFrame> {
        if bytes.len() > FRAME_MAX_BYTES {
            return Err(BadFrame::TooLong(bytes.len()));
        }
        let frame = Self::decode(bytes)?;
        if frame.items() > FRAME_MAX_ITEMS {
            return Err(BadFrame::TooMany);
        }
        if frame.services.iter().any(|service| service.name.len() > NAME_MAX_BYTES) {
            return Err(BadFrame::LongName);
        }
        match &frame.hello {
            Some(Hello { version: 0, .. }) => Err(BadFrame::NoVersion),
            Some(_) | None => Ok(frame),
        }
    }

    fn items(&self) -> usize {
        self.flows.len() + self.ended.len() + self.services.len()
    }

    /// With its length, as it is sent. An error if it is too long.
    fn framed(&self) -> Result<Vec<u8>, BadFrame> {
        let length = self.encoded_len();
        let announced = u32::try_from(length).ok().filter(|_| length <= FRAME_MAX_BYTES);
        let announced = announced.ok_or(BadFrame::TooLong(length))?;
        let mut bytes = Vec::with_capacity(size_of::<u32>() + length);
        bytes.extend(announced.to_be_bytes());
        self.encode_raw(&mut bytes);
        Ok(bytes)
    }
}

/// Reads a frame. It has no timeout.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Frame, BadFrame> {
    let length = stream.read_u32().await? as usize;
    if length > FRAME_MAX_BYTES {
        return Err(BadFrame::TooLong(length));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Frame::parse(&bytes)
}

/// Writes a frame, which the stream may keep until it is flushed. It has no timeout.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), BadFrame> {
    stream.write_all(&frame.framed()?).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
