//! One HTTP exchange over the socket, limited in time and size.

use std::{fmt, fs, io, os::unix::fs::FileTypeExt, time::Duration};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::{Answer, Client, Error};
use crate::api::server::CONNECTION_TIMEOUT;

/// Timeout of requests that change nothing. Monitoring systems usually stop a plugin after 10 seconds.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of other requests: longer than the server's, so that its error message arrives first.
pub const TIMEOUT: Duration = Duration::from_secs(CONNECTION_TIMEOUT.as_secs() + 5);
/// Maximum size of a response. The longest is the metrics: about 2.9 KB for each of at most 65,536 backends.
const ANSWER_LIMIT_BYTES: usize = 256 * 1024 * 1024;

impl Client {
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        self.ask_within(LOOK_TIMEOUT, Method::GET, path).await
    }

    pub(super) async fn ask_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
    ) -> Answer<T> {
        let body = self.exchange(limit, method.clone(), path, Vec::new()).await?;
        parse(&method, path, &body)
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Answer<T> {
        let answer = self.exchange_json(&method, path, body).await?;
        parse(&method, path, &answer)
    }

    /// `None`: success with an empty body.
    pub(super) async fn send_optional<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Answer<Option<T>> {
        let answer = self.exchange_json(&method, path, body).await?;
        if answer.is_empty() { Ok(None) } else { parse(&method, path, &answer).map(Some) }
    }

    async fn exchange_json(&self, method: &Method, path: &str, body: &impl Serialize) -> Answer<Vec<u8>> {
        let body = serde_json::to_vec(body).map_err(|error| unreadable(method, path, &error))?;
        self.exchange(TIMEOUT, method.clone(), path, body).await
    }

    /// Returns the body of a successful response.
    pub(super) async fn exchange(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Answer<Vec<u8>> {
        match timeout(limit, self.unbounded_exchange(&method, path, body)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(Error::TimedOut { question: format!("{method} {path}"), limit }),
        }
    }

    async fn unbounded_exchange(&self, method: &Method, path: &str, body: Vec<u8>) -> Answer<Vec<u8>> {
        let broken = |error: hyper::Error| unreadable(method, path, &error);
        let stream = UnixStream::connect(&self.socket).await.map_err(|reason| self.unreachable(reason))?;

        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "xlb")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unreadable(method, path, &error))?;
        let response = sender.send_request(request).await.map_err(|error| self.gone_or(error, broken))?;
        let answer = read(response).await.map_err(|why| unreadable(method, path, &why));
        connection.abort();

        let (is_good, body) = answer?;
        if is_good { Ok(body) } else { Err(Error::Refused(parse(method, path, &body)?)) }
    }

    /// connect(2) returns the same error for a file that is not a socket and for the socket of a dead daemon.
    fn unreachable(&self, reason: io::Error) -> Error {
        let found = fs::metadata(&self.socket);
        let is_no_socket = found.is_ok_and(|found| !found.file_type().is_socket());
        let reason = if reason.kind() == io::ErrorKind::ConnectionRefused && is_no_socket {
            io::Error::new(io::ErrorKind::InvalidInput, "not a socket")
        } else {
            reason
        };
        Error::Unreachable { socket: self.socket.clone(), reason }
    }

    /// A daemon that dies between accept and response is also reported as unreachable.
    fn gone_or(&self, error: hyper::Error, otherwise: impl Fn(hyper::Error) -> Error) -> Error {
        if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            let reason =
                io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed without an answer");
            return Error::Unreachable { socket: self.socket.clone(), reason };
        }
        otherwise(error)
    }
}

async fn read(response: Response<Incoming>) -> Result<(bool, Vec<u8>), String> {
    let is_good = response.status().is_success();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            format!("longer than {ANSWER_LIMIT_BYTES} bytes")
        } else {
            error.to_string()
        }
    })?;
    Ok((is_good, body.to_bytes().to_vec()))
}

fn parse<T: DeserializeOwned>(method: &Method, path: &str, body: &[u8]) -> Answer<T> {
    serde_json::from_slice(body).map_err(|error| unreadable(method, path, &error))
}

fn unreadable(method: &Method, path: &str, why: &dyn fmt::Display) -> Error {
    Error::Unreadable { question: format!("{method} {path}"), why: why.to_string() }
}

/// Characters that are not escaped in a path segment (RFC 3986, 2.3: unreserved characters).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path segment.
pub(super) fn escaped(segment: &str) -> PercentEncode<'_> {
    utf8_percent_encode(segment, UNRESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_path_segment() {
        assert_eq!(escaped("web-1.a_b~").to_string(), "web-1.a_b~");
        assert_eq!(escaped("../a b?c=d&e#é").to_string(), "..%2Fa%20b%3Fc%3Dd%26e%23%C3%A9");
    }
}
