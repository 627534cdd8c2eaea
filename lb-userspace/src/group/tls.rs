//! TLS between nodes: version 1.3, with certificates of both sides from the group's CA.
//!
//! The node that connects verifies the name of the node that it wants. The node that accepts verifies that the certificate
//! is for one of its peers ([`is_for`]), when it knows from the hello which one. There is no resumption: each connection
//! shows a certificate, and what the files say counts for the next connection.

mod faults;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, client,
    rustls::{
        ClientConfig, Error, RootCertStore, ServerConfig,
        client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _, verify_server_name},
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, ServerName, UnixTime},
        server::{
            NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier,
        },
        version::TLS13,
    },
    server,
};

pub use self::faults::of_io;
use crate::{
    spec::Group,
    tls_files::{self, Stamps},
};

/// The certificate, the key and the CA of this node. The files are read again when they have changed.
#[derive(Debug)]
pub struct Credentials {
    files: Files,
    read: Option<(Stamps, Configs)>,
}

#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

#[derive(Clone, Debug)]
struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Credentials {
    /// Reads nothing yet.
    pub fn new(group: &Group) -> Self {
        let Group { node: _, listen: _, cert, key, ca, peers: _ } = group;
        let files = Files { cert: cert.clone(), key: key.clone(), ca: ca.clone() };
        Self { files, read: None }
    }

    /// Connects to the node with this name.
    pub async fn connect<S>(&mut self, stream: S, node: &str) -> Result<client::TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let client = self.configs()?.client;
        let connecting = TlsConnector::from(client).connect(server_name(node)?, stream);
        connecting.await.map_err(|error| of_io(&error))
    }

    /// Accepts one connection with the files as they are.
    pub fn acceptor(&mut self) -> Result<TlsAcceptor, String> {
        Ok(TlsAcceptor::from(self.configs()?.server))
    }

    fn configs(&mut self) -> Result<Configs, String> {
        let stamps = Stamps::of(self.files.paths())?;
        match &self.read {
            Some((read, configs)) if *read == stamps => Ok(configs.clone()),
            Some(_) | None => {
                let configs = self.files.configs()?;
                self.read = Some((stamps, configs.clone()));
                Ok(configs)
            }
        }
    }
}

/// Why the files of the group cannot be used.
pub fn check_files(group: &Group) -> Result<(), String> {
    let named = |why| format!("[group]: {why}");
    Credentials::new(group).files.configs().map(drop).map_err(named)
}

/// Why peers will refuse this node, whose files can be used.
pub fn check_certificate(group: &Group) -> Result<(), String> {
    let named = |why: &str| format!("[group]: peers will refuse this node: {}: {why}", group.cert.display());
    let chain = tls_files::certificates(&group.cert).map_err(|why| format!("[group]: {why}"))?;
    let roots = Arc::new(tls_files::roots(&group.ca).map_err(|why| format!("[group]: {why}"))?);
    let [own, others @ ..] = &chain[..] else { return Ok(()) };
    let (name, now) = (server_name(&group.node)?, UnixTime::now());
    let wrong = |error: Error| named(&faults::of_tls(&error));
    let as_server = server_verifier(Arc::clone(&roots))?;
    as_server.verify_server_cert(own, others, &name, &[], now).map_err(wrong)?;
    let as_client = client_verifier(roots)?;
    as_client.verify_client_cert(own, others, now).map(drop).map_err(wrong)
}

/// Is the certificate of a node for this name?
pub fn is_for(stream: &server::TlsStream<impl Sized>, node: &str) -> bool {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    certificate.is_some_and(|certificate| is_named(certificate, node))
}

fn is_named(certificate: &CertificateDer<'_>, node: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(node))
    else {
        return false;
    };
    verify_server_name(&parsed, &name).is_ok()
}

impl Files {
    fn paths(&self) -> [&Path; 3] {
        [&self.cert, &self.key, &self.ca]
    }

    fn configs(&self) -> Result<Configs, String> {
        let roots = Arc::new(tls_files::roots(&self.ca)?);
        Ok(Configs {
            client: Arc::new(self.client(Arc::clone(&roots))?),
            server: Arc::new(self.server(roots)?),
        })
    }

    fn client(&self, roots: Arc<RootCertStore>) -> Result<ClientConfig, String> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?
            .with_webpki_verifier(server_verifier(roots)?)
            .with_client_auth_cert(tls_files::certificates(&self.cert)?, tls_files::private_key(&self.key)?)
            .map_err(|error| self.mismatch(&error))?;
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn server(&self, roots: Arc<RootCertStore>) -> Result<ServerConfig, String> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(client_verifier(roots)?)
            .with_single_cert(tls_files::certificates(&self.cert)?, tls_files::private_key(&self.key)?)
            .map_err(|error| self.mismatch(&error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn mismatch(&self, error: &Error) -> String {
        format!("{} with {}: {error}", self.cert.display(), self.key.display())
    }
}

fn server_verifier(roots: Arc<RootCertStore>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    verifier.map_err(|error| error.to_string())
}

fn client_verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    verifier.map_err(|error| error.to_string())
}

fn server_name(node: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(node.to_owned()).map_err(|error| format!("{node}: {error}"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
pub mod fixture;
#[cfg(test)]
mod tests;
