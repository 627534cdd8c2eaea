//! A certificate for the lab's servers, which is its own CA.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair};

/// The name in it.
pub const NAME: &str = "db.example.org";

/// Makes the files, in PEM.
pub fn make(certificate: &Path, private_key: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    fs::write(certificate, CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?.pem())?;
    fs::write(private_key, key.serialize_pem())?;
    Ok(fs::set_permissions(private_key, fs::Permissions::from_mode(0o600))?)
}
