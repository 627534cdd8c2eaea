//! TLS of a probe: its keys in the configuration, the handshake, and what its failure means.
//!
//! The files are read when a probe needs them and they have changed, so that renewed certificates need no reload. The CAs of
//! the host are read once.

mod faults;
mod files;
mod verifier;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, Error,
        client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _},
        crypto::ring,
        pki_types::{IpAddr, ServerName, UnixTime},
    },
};
use toml::de::DeValue;

use super::Fault;
use crate::{
    document::{AnyKey, Key, Keys, value},
    named::named,
    text::quote,
    tls_files::Stamps,
};

/// Whether a probe uses TLS, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsClient {
    pub mode: TlsMode,
    /// A file of CA certificates. `None`: those of this host.
    pub ca: Option<PathBuf>,
    /// The name in the server's certificate. `None`: its address.
    pub server_name: Option<String>,
    /// The files of the client's certificate chain and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The protocols over TLS of which the server must choose one (ALPN, RFC 7301). Empty: none are offered.
    pub protocols: &'static [&'static [u8]],
}

/// The key `tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Off,
    /// TLS with a server that is not verified.
    Require,
    /// TLS with a server that has a certificate of its name from a trusted CA.
    Verify,
}

named!(TlsMode { Off = "off", Require = "require", Verify = "verify", });

pub const TLS: Key<TlsMode> = Key::new("tls", |it| value::choice(it, "value of tls", &[]));
pub const CA: Key<PathBuf> = Key::new("ca", value::file_path);
pub const SERVER_NAME: Key<String> = Key::new("server_name", server_name);
pub const CERT: Key<PathBuf> = Key::new("cert", value::file_path);
pub const KEY: Key<PathBuf> = Key::new("key", value::secret_path);

/// What is kept between two handshakes: the configuration made from the files.
#[derive(Default)]
pub struct TlsSession(Option<(Stamps, Configs)>);

/// Made from the files.
#[derive(Clone)]
struct Configs {
    /// Of the mode.
    client: Arc<ClientConfig>,
    /// Accepts any server.
    unverified: Arc<ClientConfig>,
    /// Verifies the server. `None`: any server is right.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl TlsClient {
    /// Reads the keys. `default`: without the key `tls`.
    pub fn read(keys: &Keys<'_>, default: TlsMode) -> Self {
        for (key, other) in [(&CERT, &KEY), (&KEY, &CERT)] {
            if keys.has(key) && !keys.has(other) {
                keys.refuse(key, format!("`{}` needs the key `{}`", key.name(), other.name()));
            }
        }
        let mode = keys.or(&TLS, default);
        let needs_tls: [&dyn AnyKey; 4] = [&CA, &SERVER_NAME, &CERT, &KEY];
        for key in needs_tls {
            if mode == TlsMode::Off && keys.layers.own_place(key).is_some() {
                keys.refuse(key, format!("`{}` needs tls = \"require\" or \"verify\"", key.name()));
            }
        }
        if mode == TlsMode::Require && keys.layers.own_place(&CA).is_some() {
            keys.refuse(&CA, "`ca` needs tls = \"verify\": with \"require\", the server is not verified");
        }
        Self {
            mode,
            ca: keys.value(&CA).filter(|_| mode == TlsMode::Verify),
            server_name: keys.value(&SERVER_NAME).filter(|_| mode != TlsMode::Off),
            identity: keys.value(&CERT).zip(keys.value(&KEY)).filter(|_| mode != TlsMode::Off),
            protocols: &[],
        }
    }

    /// The same for types that are TLS by their nature.
    pub fn read_always(keys: &Keys<'_>) -> Self {
        let client = Self::read(keys, TlsMode::Verify);
        if client.mode == TlsMode::Off {
            keys.refuse(&TLS, "this type of check is over TLS: use tls = \"require\" or \"verify\"");
        }
        client
    }

    /// What is wrong with the files.
    pub fn check_files(&self) -> Result<(), String> {
        if self.mode == TlsMode::Off { Ok(()) } else { files::configs(self).map(drop) }
    }

    /// Reads the files if they have changed. For servers that count broken handshakes, this comes before the connection.
    pub fn prepare(&self, session: &mut TlsSession) -> Result<(), Fault> {
        if self.mode == TlsMode::Off { Ok(()) } else { session.config(self).map(drop) }
    }

    /// Encrypts a connection.
    pub async fn handshake<S>(
        &self,
        session: &mut TlsSession,
        stream: S,
        address: SocketAddr,
    ) -> Result<TlsStream<S>, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = session.config(self)?;
        let connecting = TlsConnector::from(config.client).connect(self.name(address), stream);
        connecting.await.map_err(faults::of_handshake)
    }

    /// The same for servers that lock out a client which breaks off handshakes: the handshake is completed in any case, and
    /// the server is verified afterwards. Nothing secret may be sent to one that is not the right one.
    pub async fn handshake_then_verify<S>(
        &self,
        session: &mut TlsSession,
        stream: S,
        address: SocketAddr,
    ) -> Result<(TlsStream<S>, Result<(), Fault>), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = session.config(self)?;
        let connecting = TlsConnector::from(config.unverified).connect(self.name(address), stream);
        let stream = connecting.await.map_err(faults::of_handshake)?;
        let verified = match config.verifier {
            Some(verifier) => verify(&verifier, &stream, &self.name(address)),
            None => Ok(()),
        };
        Ok((stream, verified))
    }

    fn name(&self, address: SocketAddr) -> ServerName<'static> {
        let named = self.server_name.as_ref().and_then(|name| ServerName::try_from(name.clone()).ok());
        named.unwrap_or_else(|| ServerName::IpAddress(IpAddr::from(address.ip())))
    }
}

impl TlsSession {
    fn config(&mut self, client: &TlsClient) -> Result<Configs, Fault> {
        let stamps = files::stamps(client).map_err(Fault::local)?;
        match &self.0 {
            Some((read, configs)) if *read == stamps => Ok(configs.clone()),
            Some(_) | None => {
                let configs = files::configs(client).map_err(Fault::local)?;
                self.0 = Some((stamps, configs.clone()));
                Ok(configs)
            }
        }
    }
}

/// Has the server a certificate of this name, from a trusted CA? The handshake has shown that it has the private key.
fn verify<S>(
    verifier: &WebPkiServerVerifier,
    stream: &TlsStream<S>,
    name: &ServerName<'_>,
) -> Result<(), Fault> {
    let (_, connection) = stream.get_ref();
    let verified = match connection.peer_certificates() {
        Some([own, others @ ..]) => {
            verifier.verify_server_cert(own, others, name, &[], UnixTime::now()).map(drop)
        }
        Some([]) | None => Err(Error::NoCertificatesPresented),
    };
    verified.map_err(|error| faults::of_tls(&error))
}

/// The time at which the first certificate of the server's chain ends.
pub fn certificate_ends<S>(stream: &TlsStream<S>) -> Option<SystemTime> {
    let (_, connection) = stream.get_ref();
    let ends = |der: &[u8]| {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    };
    connection.peer_certificates()?.iter().filter_map(|it| ends(it)).min()
}

/// A host name or an address, as in a certificate.
fn server_name(value: &DeValue<'_>) -> Result<String, String> {
    let name = value::text(value)?;
    match ServerName::try_from(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err(format!("{} is not a host name: expected one like `db.example.org`", quote(name))),
    }
}

/// Every handshake is a full one, so that each probe sees the certificate.
fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config
}

fn provider() -> Arc<tokio_rustls::rustls::crypto::CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;
