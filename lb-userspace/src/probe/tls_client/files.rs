//! The client's configuration, from the files that the keys name.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
};

use super::{Configs, TlsClient, TlsMode, provider, verifier::Unverified, without_resumption};
use crate::tls_files::{Stamps, certificates, private_key, roots};

/// Which versions of the files were read.
pub fn stamps(client: &TlsClient) -> Result<Stamps, String> {
    let identity = client.identity.iter().flat_map(|(cert, key)| [cert, key]);
    Stamps::of(client.ca.iter().chain(identity).map(AsRef::<Path>::as_ref))
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
    let roots = client.ca.as_deref().map_or_else(roots_of_host, |path| roots(path).map(Arc::new))?;
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
