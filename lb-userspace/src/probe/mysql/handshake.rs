//! The packets of a login. No I/O.

use super::{
    greeting::capability,
    refusal::{self, Refusal},
    wire::{Malformed, Values},
};

const CAPABILITIES: u32 = capability::LONG_PASSWORD
    | capability::PROTOCOL_41
    | capability::SECURE_CONNECTION
    | capability::PLUGIN_AUTH;
/// What a server may send in one packet; servers ignore it.
const MAX_PACKET: u32 = 1 << 24;
/// utf8mb4, so that the names and words of the server can be read.
const CHARACTER_SET: u8 = 45;

/// Asks for TLS. The login follows, encrypted.
pub fn tls_request() -> Vec<u8> {
    prefix(CAPABILITIES | capability::TLS)
}

/// A login. `capabilities`: those of the server. `proof`: see [`Plugin::prove`](super::password::Plugin::prove).
pub fn request(user: &str, proof: &[u8], plugin: &str, is_over_tls: IsOverTls) -> Vec<u8> {
    let tls = match is_over_tls {
        IsOverTls::Yes => capability::TLS,
        IsOverTls::No => 0,
    };
    let mut payload = prefix(CAPABILITIES | tls);
    payload.extend_from_slice(user.as_bytes());
    payload.push(0);
    payload.push(proof.len() as u8);
    payload.extend_from_slice(proof);
    payload.extend_from_slice(plugin.as_bytes());
    payload.push(0);
    payload
}

/// Is the connection encrypted?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsOverTls {
    Yes,
    No,
}

fn prefix(capabilities: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend_from_slice(&capabilities.to_le_bytes());
    payload.extend_from_slice(&MAX_PACKET.to_le_bytes());
    payload.push(CHARACTER_SET);
    payload.extend_from_slice(&[0; 23]);
    payload
}

/// What the server says to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Welcome,
    Refused(Refusal),
    /// Another plugin is wanted, or the same one with another nonce.
    Switch { plugin: String, nonce: Vec<u8> },
    /// `caching_sha2_password`: the proof is right, and a welcome follows.
    Proven,
    /// `caching_sha2_password`: the server does not remember the user, and wants the password itself.
    PasswordWanted,
}

impl Reply {
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        match payload {
            [0, ..] => Ok(Self::Welcome),
            [refusal::MARK, ..] => Refusal::parse(payload).map(Self::Refused),
            [0xfe, rest @ ..] => Ok(switch(rest)),
            [1, 3] => Ok(Self::Proven),
            [1, 4] => Ok(Self::PasswordWanted),
            _ => Err(Malformed::Broken),
        }
    }
}

/// Without a name, the plugin is that of MySQL before 4.1.
fn switch(payload: &[u8]) -> Reply {
    let mut values = Values(payload);
    let plugin = match values.string() {
        b"" => "mysql_old_password".to_owned(),
        name => String::from_utf8_lossy(name).into_owned(),
    };
    let nonce = values.0.strip_suffix(&[0]).unwrap_or(values.0);
    Reply::Switch { plugin, nonce: nonce.to_vec() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::mysql::refusal::tests::refusal;

    #[test]
    fn a_login_has_the_name_the_proof_and_the_plugin() {
        let payload = request("xlb", &[7; 20], "mysql_native_password", IsOverTls::No);

        let mut values = Values(&payload[32..]);
        assert_eq!(values.string(), b"xlb");
        assert_eq!(values.counted(), Ok(&[7; 20][..]));
        assert_eq!(values.string(), b"mysql_native_password");
        assert_eq!(values.0, b"");
    }

    #[test]
    fn the_request_for_tls_is_the_beginning_of_the_login_after_it() {
        let payload = request("xlb", b"", "p", IsOverTls::Yes);

        assert_eq!(payload[..32], tls_request());
        assert_eq!(tls_request().len(), 32);
    }

    #[test]
    fn every_reply_to_a_login_is_understood() {
        let switch = Reply::Switch { plugin: "caching_sha2_password".to_owned(), nonce: vec![9; 20] };
        let payload = [&[0xfe][..], b"caching_sha2_password\0", &[9; 20], &[0]].concat();
        assert_eq!(Reply::parse(&payload), Ok(switch));

        let old = Reply::Switch { plugin: "mysql_old_password".to_owned(), nonce: Vec::new() };
        assert_eq!(Reply::parse(&[0xfe]), Ok(old));
        assert_eq!(Reply::parse(&[0, 0, 0, 2, 0, 0, 0]), Ok(Reply::Welcome));
        assert_eq!(Reply::parse(&[1, 3]), Ok(Reply::Proven));
        assert_eq!(Reply::parse(&[1, 4]), Ok(Reply::PasswordWanted));
        let denied = refusal(1045, "#28000Access denied");
        assert!(matches!(Reply::parse(&denied), Ok(Reply::Refused(Refusal { code: 1045, .. }))));
        for wrong in [&[][..], &[1], &[1, 5], &[2], &[0xff], &[0xff, 1]] {
            assert_eq!(Reply::parse(wrong), Err(Malformed::Broken), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut payload in any::<Vec<u8>>(), first in any::<u8>()) {
            payload.insert(0, first);
            let _ = Reply::parse(&payload);
        }
    }
}
