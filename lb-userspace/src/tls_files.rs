//! Certificates and private keys in files that the operator names, which may be renewed while they are in use.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::limited_file::{self, Readers};

/// Maximum size of a file of certificates: the CAs of a host take about 200 KiB.
const MAX_CERTIFICATES: u64 = 4 * 1024 * 1024;
const MAX_PRIVATE_KEY: u64 = 64 * 1024;

/// Which versions of the files were read.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamps(Vec<(u64, i64, i64, u64)>);

impl Stamps {
    pub fn of<'p>(files: impl IntoIterator<Item = &'p Path>) -> Result<Self, String> {
        let stamp = |path: &Path| {
            let file = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
        };
        files.into_iter().map(stamp).collect::<Result<_, String>>().map(Self)
    }
}

/// CAs that are trusted.
pub fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

/// At least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
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

/// A file that others can read is refused.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let named = |error: String| format!("{}: {error}", path.display());
    let text = limited_file::read(path, MAX_PRIVATE_KEY, Readers::OwnerAndGroup)
        .map_err(|error| named(error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| named(format!("not a private key: {error}")))
}
