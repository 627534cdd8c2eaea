//! What a server gets instead of the password: the authentication plugins.
//!
//! Both plugins prove the knowledge of the password by a hash of it and of the server's nonce. `caching_sha2_password` does so
//! only while the server remembers a login of the user; otherwise it asks for the password itself.

use ring::digest::{Algorithm, Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use crate::named::named;

/// An authentication plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// The default of MariaDB, and of MySQL up to 5.7.
    Native,
    /// The default of MySQL 8.
    CachingSha2,
}

named!(Plugin { Native = "mysql_native_password", CachingSha2 = "caching_sha2_password", });

impl Plugin {
    /// The proof for this nonce. Without a password, it is empty.
    pub fn prove(self, password: Option<&[u8]>, nonce: &[u8]) -> Vec<u8> {
        let Some(password) = password else { return Vec::new() };
        match self {
            // SHA1(password) XOR SHA1(nonce, SHA1(SHA1(password)))
            Self::Native => {
                let hash = |parts: &[&[u8]]| hash(&SHA1_FOR_LEGACY_USE_ONLY, parts);
                let once = hash(&[password]);
                let twice = hash(&[once.as_ref()]);
                xor(&once, &hash(&[nonce, twice.as_ref()]))
            }
            // SHA256(password) XOR SHA256(SHA256(SHA256(password)), nonce)
            Self::CachingSha2 => {
                let hash = |parts: &[&[u8]]| hash(&SHA256, parts);
                let once = hash(&[password]);
                let twice = hash(&[once.as_ref()]);
                xor(&once, &hash(&[twice.as_ref(), nonce]))
            }
        }
    }
}

fn hash(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Digest {
    digest(algorithm, &parts.concat())
}

fn xor(one: &Digest, other: &Digest) -> Vec<u8> {
    one.as_ref().iter().zip(other.as_ref()).map(|(one, other)| one ^ other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with hashlib of Python, for the nonce 1, 2, .. 20.
    const PROOFS: &[(Plugin, &str)] = &[
        (Plugin::Native, "b32bb3a583e1340c0a1108d58b1be49781ad8c2f"),
        (Plugin::CachingSha2, "746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9"),
    ];

    #[test]
    fn the_proofs_are_those_of_another_implementation() {
        let nonce: [u8; 20] = std::array::from_fn(|at| at as u8 + 1);

        for (plugin, expected) in PROOFS {
            let proof = plugin.prove(Some(b"secret"), &nonce);

            let hex: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, *expected);
            assert!(plugin.prove(None, &nonce).is_empty());
        }
    }
}
