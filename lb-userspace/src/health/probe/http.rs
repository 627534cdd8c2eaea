//! Up if it answers 2xx or 3xx over HTTP/1.
//!
//! One request on a connection of its own: no pool, no redirects followed. A redirect is an answer, and where it
//! leads is for clients to find out: a backend must not choose what this host connects to.

use std::{error::Error, io, net::SocketAddr};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::Fault;

/// The longest head of an answer.
const HEADERS_MAX_BYTES: usize = 16 * 1024;
/// The most lines of a head; hyper's own limit, made ours to tell it.
const HEADERS_MAX: usize = 100;
/// The body is read, so that an honest server sees its answer taken, but only so far.
const BODY_MAX_BYTES: usize = 64 * 1024;

const NOT_HTTP: &str = "not HTTP";
const CLOSED: &str = "closed without an answer";

pub(super) async fn probe(address: SocketAddr, path: &str, host: Option<&str>) -> Result<String, Fault> {
    let request = request(address, path, host)?;
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEADERS_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| fault(&error))?;
    // Of one task: a set, because it ends its tasks when it is dropped.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    match sender.send_request(request).await {
        Ok(response) => judge(response).await,
        Err(error) if error.is_canceled() => Err(never_asked(&mut driver).await),
        Err(error) => Err(fault(&error)),
    }
}

/// The connection was unusable before the request was out: its end says why.
async fn never_asked(driver: &mut JoinSet<hyper::Result<()>>) -> Fault {
    match driver.join_next().await {
        Some(Ok(Err(error))) if error.source().is_some() => fault(&error),
        // Whoever speaks first speaks something else (SSH, SMTP, MySQL).
        Some(Ok(Err(_))) => Fault::Failed(NOT_HTTP.to_owned()),
        Some(Ok(Ok(())) | Err(_)) | None => Fault::Failed(CLOSED.to_owned()),
    }
}

fn request(address: SocketAddr, path: &str, host: Option<&str>) -> Result<Request<Empty<Bytes>>, Fault> {
    Request::get(path)
        .header(header::HOST, host.map_or_else(|| authority(address), str::to_owned))
        .header(header::USER_AGENT, concat!("xlb/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| {
            Fault::NotAsked(format!("no request can be made of path `{path}` and host: {error}"))
        })
}

/// The port is left out where it is the scheme's own (RFC 9110, 4.2.3).
fn authority(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.port() == 80 => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.port() == 80 => format!("[{}]", v6.ip()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.to_string(),
    }
}

async fn judge(response: Response<Incoming>) -> Result<String, Fault> {
    let status = response.status();
    let said = format!("HTTP {}", status.as_u16());
    if !(status.is_success() || status.is_redirection()) {
        return Err(Fault::Failed(said));
    }
    let mut body = Limited::new(response.into_body(), BODY_MAX_BYTES);
    while let Some(frame) = body.frame().await {
        let Err(error) = frame else { continue };
        // More than the limit is no fault: enough was seen.
        let Some(error) = error.downcast_ref::<hyper::Error>() else { break };
        return Err(within(&said, fault(error)));
    }
    Ok(said)
}

fn within(said: &str, fault: Fault) -> Fault {
    match fault {
        Fault::Failed(what) => Fault::Failed(format!("{said}, then {what}")),
        Fault::Silent => Fault::Silent,
        Fault::NotAsked(why) => Fault::NotAsked(why),
    }
}

fn fault(error: &hyper::Error) -> Fault {
    if error.is_parse_too_large() {
        return Fault::Failed(format!(
            "headers longer than {} KiB or {HEADERS_MAX} lines",
            HEADERS_MAX_BYTES / 1024
        ));
    }
    if error.is_parse() {
        return Fault::Failed(NOT_HTTP.to_owned());
    }
    if let Some(cause) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        // `io::Error` cannot be cloned: its number says as much.
        return match cause.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number).into(),
            None => Fault::Failed(cause.to_string()),
        };
    }
    if error.is_incomplete_message() || error.is_closed() {
        return Fault::Failed(CLOSED.to_owned());
    }
    Fault::Failed(error.to_string())
}
