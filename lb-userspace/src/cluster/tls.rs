//! TLS to etcd. The files are read again when they have changed.

use std::{path::Path, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, crypto::ring, pki_types::ServerName},
};

use crate::{
    group::tls::of_io,
    spec::Cluster,
    tls_files::{self, Stamps},
};

/// The CA that is trusted, and this node's certificate.
#[derive(Debug, Default)]
pub struct Credentials(Option<(Stamps, Arc<ClientConfig>)>);

impl Credentials {
    /// Encrypts a connection to the member with this name or address.
    pub async fn connect(
        &mut self,
        cluster: &Cluster,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let config = self.config(cluster)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| of_io(&error))
    }

    fn config(&mut self, cluster: &Cluster) -> Result<Arc<ClientConfig>, String> {
        let identity = cluster.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let stamps = Stamps::of(cluster.ca.iter().chain(identity).map(AsRef::<Path>::as_ref))?;
        match &self.0 {
            Some((read, config)) if *read == stamps => Ok(Arc::clone(config)),
            Some(_) | None => {
                let config = Arc::new(read(cluster)?);
                self.0 = Some((stamps, Arc::clone(&config)));
                Ok(config)
            }
        }
    }
}

/// Why the files cannot be used.
pub fn check_files(cluster: &Cluster) -> Result<(), String> {
    if cluster.ca.is_none() {
        return Ok(());
    }
    read(cluster).map(drop).map_err(|why| format!("[cluster]: {why}"))
}

fn read(cluster: &Cluster) -> Result<ClientConfig, String> {
    let ca = cluster.ca.as_deref().ok_or("https needs `ca`")?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(tls_files::roots(ca)?);
    let Some((cert, key)) = &cluster.identity else { return Ok(builder.with_no_client_auth()) };
    builder
        .with_client_auth_cert(tls_files::certificates(cert)?, tls_files::private_key(key)?)
        .map_err(|error| format!("{} with {}: {error}", cert.display(), key.display()))
}
