//! `type = "http"`: up if the backend answers 2xx or 3xx over HTTP/1.
//!
//! The status line and the headers decide. The body does not matter: it may be short, cut off, slow or endless, like
//! an event stream. Each request has its own connection, and redirects are not followed: a redirect is an answer, and
//! a backend must not choose what this host connects to.

mod head;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::net::Protocol;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use toml::de::DeValue;

use self::head::{HEAD_MAX_BYTES, HEADERS_MAX, Malformed};
use super::{CheckType, Fault, Verdict, connect::connect};
use crate::{
    document::{AnyKey, Key, Layers, value},
    text::quote,
};

/// Maximum length of the path.
const MAX_REQUEST_TARGET: usize = 1024;
/// Maximum length of a host name (RFC 1035, 2.3.4) with its port.
const MAX_HOST: usize = 255 + ":65535".len();

/// The body is read up to this size and time: if its response is read, a server does not log a broken connection.
const BODY_MAX_BYTES: u64 = 64 * 1024;
const BODY_TIME_MAX: Duration = Duration::from_millis(50);

/// Requests a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Starts with `/`.
    pub path: String,
    /// The `Host` header. `None`: the probed address.
    pub host: Option<String>,
}

const PATH: Key<String> = Key::new("path", request_target);
const HOST: Key<String> = Key::new("host", host);

impl CheckType for Http {
    const NAME: &'static str = "http";
    const KEYS: &'static [&'static dyn AnyKey] = &[&PATH, &HOST];
    const OVER: Protocol = Protocol::Tcp;

    fn read(keys: &Layers<'_>) -> Self {
        Self { path: keys.get(&PATH).or("/".to_owned()), host: keys.get(&HOST).value() }
    }

    async fn run(&self, address: SocketAddr, source: Option<IpAddr>, limit: Duration) -> Verdict {
        let request = request(address, &self.path, self.host.as_deref());
        let exchange = timeout(limit, exchange(address, source, &request));
        match exchange.await.unwrap_or(Err(Fault::Silent)) {
            Ok((status, stream)) => {
                let verdict = Verdict::now(judge(status));
                // An error in the body says nothing about the backend.
                let _ = timeout(BODY_TIME_MAX, discard_body(stream)).await;
                verdict
            }
            Err(fault) => Verdict::now(Err(fault)),
        }
    }
}

/// A request target in origin form (RFC 9112, 3.2.1), without characters that would break the request line.
fn request_target(value: &DeValue<'_>) -> Result<String, String> {
    let path = value::text(value)?;
    if !path.starts_with('/') {
        return Err(format!("{} is not a path: it must begin with `/`", quote(path)));
    }
    // RFC 3986, 3.3 and 3.4: visible ASCII; a fragment (`#`) is never sent.
    if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || "#\"<>\\^`{|}".contains(*c)) {
        let (shown, code) = (bad.escape_default(), u32::from(bad));
        return Err(format!("a path must not contain `{shown}` (U+{code:04X}): percent-encode it as %XX"));
    }
    if path.len() > MAX_REQUEST_TARGET {
        return Err(format!("a path of {} bytes is too long: at most {MAX_REQUEST_TARGET}", path.len()));
    }
    Ok(path.to_owned())
}

/// A value of the `Host` header (RFC 9110, 7.2): a name or an address, optionally with a port.
fn host(value: &DeValue<'_>) -> Result<String, String> {
    let host = value::text(value)?;
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-._~%:[]".contains(c);
    if host.is_empty() || host.len() > MAX_HOST || !host.chars().all(is_good) {
        return Err(format!("{} is not a host: expected one like `www.example.org`", quote(host)));
    }
    Ok(host.to_owned())
}

fn judge(status: u16) -> Result<String, Fault> {
    let answer = format!("HTTP {status}");
    if (200..400).contains(&status) { Ok(answer) } else { Err(Fault::Failed(answer)) }
}

/// Returns the status when the headers are complete, and the connection, to read the body from.
async fn exchange(
    address: SocketAddr,
    source: Option<IpAddr>,
    request: &str,
) -> Result<(u16, TcpStream), Fault> {
    let mut stream = connect(address, source).await?;
    // A server may answer and reset the connection before it has read the request. The answer counts.
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

/// `path` and `host` were checked with the configuration: neither contains a line end.
fn request(address: SocketAddr, path: &str, host: Option<&str>) -> String {
    let host = host.map_or_else(|| authority(address), str::to_owned);
    let version = env!("CARGO_PKG_VERSION");
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: xlb/{version}\r\nConnection: close\r\n\r\n")
}

/// The port is omitted if it is the default of the scheme (RFC 9110, 4.2.3).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_end_the_request_line() {
        assert!(request_target(&value("'/healthz?full=1&x=%20'")).is_ok());
        for wrong in ["''", "'healthz'", "'/a b'", "\"/a\\r\\nX: y\"", "'/ä'", "'/#top'", "\"/\\u007f\""] {
            assert!(request_target(&value(wrong)).is_err(), "{wrong}");
        }
        assert!(request_target(&value(&format!("'/{}'", "a".repeat(MAX_REQUEST_TARGET)))).is_err());
    }

    #[test]
    fn a_host_cannot_end_its_header() {
        for good in ["www.example.org", "10.0.0.1:8080", "[fd00::1]:80"] {
            assert!(host(&value(&format!("'{good}'"))).is_ok());
        }
        for wrong in ["''", "'a b'", "\"a\\r\\nX: y\"", "'a/b'"] {
            assert!(host(&value(wrong)).is_err(), "{wrong}");
        }
    }

    fn value(text: &str) -> DeValue<'_> {
        DeValue::parse(text).unwrap().into_inner()
    }
}
