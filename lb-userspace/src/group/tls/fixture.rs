//! A CA, and files of nodes that it certifies.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::spec::{Group, Peer};

/// A CA, with the files of the nodes of its group.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    /// A CA of this name, which has certified none yet.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    /// The node `node`, certified with these names, in a group with these peers.
    pub fn group(&self, node: &str, names: &[&str], peers: &[(&str, SocketAddr)]) -> Group {
        self.certify(node, names, |_| {});
        let peer =
            |(node, address): &(&str, SocketAddr)| Peer { node: (*node).to_owned(), address: *address };
        Group {
            node: node.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            cert: self.file(node, "pem"),
            key: self.file(node, "key"),
            ca: self.directory.path().join("ca.pem"),
            peers: peers.iter().map(peer).collect(),
        }
    }

    /// Writes another certificate for the node.
    pub fn certify(&self, node: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(node, "pem"), certificate.pem()).unwrap();
        fs::write(self.file(node, "key"), key.serialize_pem()).unwrap();
        fs::set_permissions(self.file(node, "key"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn file(&self, node: &str, extension: &str) -> PathBuf {
        self.directory.path().join(format!("{node}.{extension}"))
    }
}
