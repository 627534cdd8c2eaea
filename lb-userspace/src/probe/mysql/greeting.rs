//! What the server says first: its version, what it is capable of, and the nonce for the password (handshake v10).

use super::wire::{Malformed, Values};

/// Why a first packet is no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGreeting {
    NotMysql,
    /// A server older than MySQL 4.1.
    TooOld,
}

/// Capabilities of both sides, as bits.
pub mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const TLS: u32 = 1 << 11;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
}

/// The version of the protocol since MySQL 3.21.
const PROTOCOL: u8 = 10;
pub const NONCE_BYTES: usize = 20;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub version: String,
    pub capabilities: u32,
    pub nonce: [u8; NONCE_BYTES],
    /// The authentication plugin that the server suggests.
    pub plugin: String,
}

impl Greeting {
    pub fn parse(payload: &[u8]) -> Result<Self, NoGreeting> {
        let greeting = fields(payload).map_err(|_| NoGreeting::NotMysql)?;
        let needed = capability::PROTOCOL_41 | capability::SECURE_CONNECTION;
        if greeting.capabilities & needed != needed {
            return Err(NoGreeting::TooOld);
        }
        Ok(greeting)
    }

    pub const fn has_tls(&self) -> bool {
        self.capabilities & capability::TLS != 0
    }
}

fn fields(payload: &[u8]) -> Result<Greeting, Malformed> {
    let mut values = Values(payload);
    if values.byte()? != PROTOCOL {
        return Err(Malformed::Broken);
    }
    let version = text(values.string());
    let _connection_id: [u8; 4] = values.array()?;
    let first: [u8; 8] = values.array()?;
    let _filler = values.byte()?;
    let low = values.short()?;
    let (_character_set, _status) = (values.byte()?, values.short()?);
    let high = values.short()?;
    let nonce_length = values.byte()?;
    let _reserved: [u8; 10] = values.array()?;
    let capabilities = u32::from(high) << 16 | u32::from(low);

    // The rest of the nonce and a zero, in at least 13 bytes.
    let rest = values.bytes(usize::from(nonce_length).saturating_sub(first.len()).max(13))?;
    let mut nonce = [0; NONCE_BYTES];
    nonce[..first.len()].copy_from_slice(&first);
    nonce[first.len()..].copy_from_slice(&rest[..NONCE_BYTES - first.len()]);
    Ok(Greeting { version, capabilities, nonce, plugin: text(values.string()) })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What MariaDB 10.11 and MySQL 8 have in common.
    pub const USUAL: u32 = capability::LONG_PASSWORD
        | capability::PROTOCOL_41
        | capability::SECURE_CONNECTION
        | capability::PLUGIN_AUTH;

    /// The payload of a greeting whose nonce is 1, 2, 3, ...
    pub fn greeting(version: &str, capabilities: u32, plugin: &str) -> Vec<u8> {
        let (low, high) = (capabilities as u16, (capabilities >> 16) as u16);
        let mut payload = vec![PROTOCOL];
        payload.extend([version.as_bytes(), &[0], &[9, 0, 0, 0], &[1, 2, 3, 4, 5, 6, 7, 8], &[0]].concat());
        payload.extend([&low.to_le_bytes()[..], &[45, 2, 0], &high.to_le_bytes(), &[21], &[0; 10]].concat());
        payload.extend((9..=NONCE_BYTES as u8).chain([0]));
        payload.extend([plugin.as_bytes(), &[0]].concat());
        payload
    }

    /// Of a MariaDB 10.11, as received.
    const MARIADB: &[u8] = b"\x0a5.5.5-10.11.19-MariaDB-0+deb12u1-log\0\x09\0\0\0w;]CuE9-\0\xfe\xf7\x08\x02\0\xff\x81\
        \x15\0\0\0\0\0\0\x1d\0\0\0u*ld2jAFxJKx\0mysql_native_password\0";

    #[test]
    fn the_greeting_of_a_server_is_understood() {
        let greeting = Greeting::parse(MARIADB).unwrap();

        assert_eq!(greeting.version, "5.5.5-10.11.19-MariaDB-0+deb12u1-log");
        assert_eq!(&greeting.nonce, b"w;]CuE9-u*ld2jAFxJKx");
        assert_eq!((greeting.plugin.as_str(), greeting.has_tls()), ("mysql_native_password", false));
    }

    #[test]
    fn every_greeting_is_read_as_it_was_written() {
        let payload = greeting("8.0.36", USUAL | capability::TLS, "caching_sha2_password");
        let nonce = std::array::from_fn(|at| at as u8 + 1);
        let read = Greeting {
            version: "8.0.36".to_owned(),
            capabilities: USUAL | capability::TLS,
            nonce,
            plugin: "caching_sha2_password".to_owned(),
        };

        assert_eq!(Greeting::parse(&payload).as_ref(), Ok(&read));
        // Old servers do not end the name of the plugin with zero.
        assert_eq!(Greeting::parse(&payload[..payload.len() - 1]), Ok(read));
        let without_plugin = payload.len() - "caching_sha2_password\0".len();
        for cut in 0..without_plugin {
            assert_eq!(Greeting::parse(&payload[..cut]), Err(NoGreeting::NotMysql), "cut at {cut}");
        }
    }

    #[test]
    fn other_protocols_and_old_servers_are_no_mysql() {
        assert_eq!(Greeting::parse(b"\x093.20\0rest"), Err(NoGreeting::NotMysql));
        assert_eq!(Greeting::parse(b"-2.0-OpenSSH_9.2p1"), Err(NoGreeting::NotMysql));
        assert_eq!(
            Greeting::parse(&greeting("4.0.1", capability::LONG_PASSWORD, "")),
            Err(NoGreeting::TooOld)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut payload in any::<Vec<u8>>()) {
            let _ = Greeting::parse(&payload);
            payload.insert(0, PROTOCOL);
            let _ = Greeting::parse(&payload);
        }
    }
}
