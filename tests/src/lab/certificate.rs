//! A certificate for the lab's servers, which is its own CA.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

/// The name in it.
pub const NAME: &str = "db.example.org";

/// Makes the files, in PEM.
pub fn make(certificate: &Path, private_key: &Path) -> Result<()> {
    make_of(CertificateParams::new([NAME.to_owned()])?, certificate, private_key)
}

/// The same with a certificate that has expired.
pub fn make_expired(certificate: &Path, private_key: &Path) -> Result<()> {
    let mut parameters = CertificateParams::new([NAME.to_owned()])?;
    parameters.not_after = date_time_ymd(2020, 1, 1);
    make_of(parameters, certificate, private_key)
}

fn make_of(parameters: CertificateParams, certificate: &Path, private_key: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    fs::write(certificate, parameters.self_signed(&key)?.pem())?;
    fs::write(private_key, key.serialize_pem())?;
    Ok(fs::set_permissions(private_key, fs::Permissions::from_mode(0o600))?)
}
