//! Up if it answers 2xx or 3xx over HTTP/1.
//!
//! The status line and the headers decide. The body does not: it may be short, cut off, slow or endless, as an event
//! stream is, and the backend is up. One request on a connection of its own: no pool, no redirects followed. A redirect
//! is an answer, and where it leads is for clients to find out: a backend must not choose what this host connects to.

mod head;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use self::head::{HEAD_MAX_BYTES, HEADERS_MAX, Malformed};
use super::{Fault, connect::connect};

/// Of the body, so much is read, in so much time: a server that sees its answer taken logs no broken connection.
const BODY_MAX_BYTES: u64 = 64 * 1024;
const BODY_TIME_MAX: Duration = Duration::from_millis(50);

pub(super) async fn probe(
    address: SocketAddr,
    source: Option<IpAddr>,
    path: &str,
    host: Option<&str>,
    limit: Duration,
) -> Result<String, Fault> {
    let request = request(address, path, host);
    let exchange = timeout(limit, exchange(address, source, &request));
    let (status, stream) = exchange.await.unwrap_or(Err(Fault::Silent))?;
    // Whether the body could be read says nothing about the backend.
    let _ = timeout(BODY_TIME_MAX, discard_body(stream)).await;
    judge(status)
}

fn judge(status: u16) -> Result<String, Fault> {
    let answer = format!("HTTP {status}");
    if (200..400).contains(&status) { Ok(answer) } else { Err(Fault::Failed(answer)) }
}

/// Returns the status when the headers are complete, and the connection, from which the body can be read.
async fn exchange(
    address: SocketAddr,
    source: Option<IpAddr>,
    request: &str,
) -> Result<(u16, TcpStream), Fault> {
    let mut stream = connect(address, source).await?;
    // A server may answer and reset the connection before it has read the request: the answer counts.
    let sent = stream.write_all(request.as_bytes()).await;
    let status = read_status(&mut stream, sent).await?;
    Ok((status, stream))
}

async fn read_status(stream: &mut TcpStream, sent: io::Result<()>) -> Result<u16, Fault> {
    let mut received = Vec::new();
    let mut limited = stream.take(HEAD_MAX_BYTES as u64);
    loop {
        let count = limited.read_buf(&mut received).await?;
        match head::status(&received) {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if count > 0 => {}
            Ok(None) if received.len() == HEAD_MAX_BYTES => return Err(Malformed::TooLarge.into()),
            Ok(None) if received.is_empty() => {
                sent?;
                return Err(Fault::Failed("closed without an answer".to_owned()));
            }
            Ok(None) => return Err(Fault::Failed("closed before the end of the headers".to_owned())),
            Err(malformed) => return Err(malformed.into()),
        }
    }
}

async fn discard_body(stream: TcpStream) -> io::Result<u64> {
    tokio::io::copy(&mut stream.take(BODY_MAX_BYTES), &mut tokio::io::sink()).await
}

/// The characters of `path` and `host` were validated with the configuration.
fn request(address: SocketAddr, path: &str, host: Option<&str>) -> String {
    let host = host.map_or_else(|| authority(address), str::to_owned);
    let version = env!("CARGO_PKG_VERSION");
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: xlb/{version}\r\nConnection: close\r\n\r\n")
}

/// The port is left out where it is the scheme's own (RFC 9110, 4.2.3).
fn authority(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.port() == 80 => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.port() == 80 => format!("[{}]", v6.ip()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.to_string(),
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Failed(match malformed {
            Malformed::NotHttp => "not HTTP".to_owned(),
            Malformed::TooLarge => {
                format!("headers longer than {} KiB or {HEADERS_MAX} lines", HEAD_MAX_BYTES / 1024)
            }
        })
    }
}
