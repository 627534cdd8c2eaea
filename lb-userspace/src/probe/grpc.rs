//! `type = "grpc"`: up if the server says that the service is SERVING (`grpc.health.v1.Health/Check`).
//!
//! One call over one HTTP/2 connection: without TLS by prior knowledge (RFC 9113, 3.3), with TLS by ALPN.

mod call;
pub(crate) mod message;
pub(crate) mod status;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;
use toml::de::DeValue;

use self::call::{Call, Client};
use super::{
    CheckType, Fault, Place, Verdict,
    connect::connect,
    farewell::{MAX_TIME, farewell},
    tls_client::{self, CA, CERT, KEY, SERVER_NAME, TLS, TlsClient, TlsMode, TlsSession},
};
use crate::{
    document::{AnyKey, Key, Keys, value},
    text::quote,
};

/// Maximum length of the name of a service.
const MAX_SERVICE: usize = 256;
/// HTTP/2 (RFC 9113, 3.2).
const ALPN: &[u8] = b"h2";

const SERVICE: Key<String> = Key::new("service", service);

/// Asks a gRPC server for its health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grpc {
    /// Empty: the whole server.
    service: String,
    client: TlsClient,
}

impl CheckType for Grpc {
    const NAME: &'static str = "grpc";
    const KEYS: &'static [&'static dyn AnyKey] = &[&SERVICE, &TLS, &CA, &SERVER_NAME, &CERT, &KEY];
    type Session = TlsSession;

    fn read(keys: &Keys<'_>) -> Self {
        let client = TlsClient { protocols: &[ALPN], ..TlsClient::read(keys, TlsMode::Off) };
        Self { service: keys.or(&SERVICE, String::new()), client }
    }

    fn check_files(&self) -> Result<(), String> {
        self.client.check_files()
    }

    async fn run(&self, session: &mut TlsSession, place: Place, limit: Duration) -> Verdict {
        let deadline = Instant::now() + limit;
        match self.client.mode {
            TlsMode::Off => match by(deadline, connect(place)).await {
                Ok(mut stream) => self.check(&mut stream, "http", place.address, deadline).await,
                Err(fault) => Verdict::now(Err(fault)),
            },
            TlsMode::Require | TlsMode::Verify => {
                let connecting =
                    async { self.client.handshake(session, connect(place).await?, place.address).await };
                match by(deadline, connecting).await {
                    Ok(stream) => self.check_with_tls(stream, place.address, deadline).await,
                    Err(fault) => Verdict::now(Err(fault)),
                }
            }
        }
    }
}

impl Grpc {
    async fn check_with_tls<S>(
        &self,
        mut stream: TlsStream<S>,
        address: SocketAddr,
        deadline: Instant,
    ) -> Verdict
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            let verdict =
                Verdict::now(Err(Fault::Failed("no HTTP/2 over TLS: the server ignores ALPN".to_owned())));
            farewell(&mut stream).await;
            return verdict;
        }
        let certificate_ends = tls_client::certificate_ends(&stream);
        let mut verdict = self.check(&mut stream, "https", address, deadline).await;
        if let Ok(answer) = &mut verdict.answer {
            answer.facts.certificate_ends = certificate_ends;
        }
        verdict
    }

    /// Calls, and closes the connection.
    async fn check<S>(
        &self,
        stream: &mut S,
        scheme: &'static str,
        address: SocketAddr,
        deadline: Instant,
    ) -> Verdict
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut client = match by(deadline, Client::new(&mut *stream)).await {
            Ok(client) => client,
            Err(fault) => return Verdict::now(Err(fault)),
        };
        let call = Call { scheme, authority: self.authority(address), service: &self.service };
        let verdict = Verdict::now(by(deadline, client.call(&call)).await);
        let closed = Instant::now() + MAX_TIME;
        let _ = timeout_at(closed, client.close()).await;
        let _ = timeout_at(closed, farewell(stream)).await;
        verdict
    }

    /// The name that the certificate must have, or the address, with the port.
    fn authority(&self, address: SocketAddr) -> String {
        let port = address.port();
        match &self.client.server_name {
            None => address.to_string(),
            Some(name) => match name.parse::<IpAddr>() {
                Ok(ip) => SocketAddr::new(ip, port).to_string(),
                Err(_) => format!("{name}:{port}"),
            },
        }
    }
}

async fn by<T>(deadline: Instant, future: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout_at(deadline, future).await.unwrap_or(Err(Fault::Silent))
}

/// The full name of a protobuf service, or any name that the server gives a status.
fn service(value: &DeValue<'_>) -> Result<String, String> {
    let name = value::text(value)?;
    if name.len() > MAX_SERVICE || name.contains(char::is_control) {
        return Err(format!("{} is not the name of a service: expected one like `example.v1.Orders`", quote(name)));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
