//! The client's configuration, from the files that the keys name.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, OnceLock},
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{Configs, TlsClient, TlsMode, provider, verifier::Unverified, without_resumption};
use crate::limited_file::{self, Readers};

/// Maximum size of a file of certificates: the CAs of a host take about 200 KiB.
const MAX_CERTIFICATES: u64 = 4 * 1024 * 1024;
const MAX_PRIVATE_KEY: u64 = 64 * 1024;

/// Which versions of the files were read.
#[derive(PartialEq, Eq)]
pub struct Stamps(Vec<(u64, i64, i64, u64)>);

impl Stamps {
    pub fn of(client: &TlsClient) -> Result<Self, String> {
        let identity = client.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let stamp = |path: &Path| {
            let file = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
        };
        let stamps =
            client.ca.iter().chain(identity).map(|path| stamp(path)).collect::<Result<_, String>>()?;
        Ok(Self(stamps))
    }
}

/// Reads the files.
pub fn configs(client: &TlsClient) -> Result<Configs, String> {
    let unverified = Arc::new(config(client, Arc::new(Unverified::default()))?);
    let verifier = match client.mode {
        TlsMode::Verify => Some(verifier(client)?),
        TlsMode::Off | TlsMode::Require => None,
    };
    let client = match &verifier {
        Some(verifier) => Arc::new(config(client, Arc::<WebPkiServerVerifier>::clone(verifier))?),
        None => Arc::clone(&unverified),
    };
    Ok(Configs { client, unverified, verifier })
}

fn verifier(client: &TlsClient) -> Result<Arc<WebPkiServerVerifier>, String> {
    let roots = client.ca.as_deref().map_or_else(roots_of_host, |path| read_roots(path).map(Arc::new))?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    verifier.map_err(|error| error.to_string())
}

fn config(client: &TlsClient, verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, String> {
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &client.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|error| format!("{}: {error}", cert.display()))?,
    };
    config.alpn_protocols = client.protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(without_resumption(config))
}

fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

/// Read until there are some, and then kept: they are large, and the same for all probes.
fn roots_of_host() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(format!("this host has no CA certificates{why}: install ca-certificates, or set `ca`"));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |error: String| format!("{}: {error}", path.display());
    let text = limited_file::read(path, MAX_CERTIFICATES, Readers::Anyone)
        .map_err(|error| named(error.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| named(format!("not a PEM file: {error}")))?;
    if found.is_empty() {
        return Err(named("it has no certificate: expected PEM (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let named = |error: String| format!("{}: {error}", path.display());
    let text = limited_file::read(path, MAX_PRIVATE_KEY, Readers::OwnerAndGroup)
        .map_err(|error| named(error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| named(format!("not a private key: {error}")))
}
