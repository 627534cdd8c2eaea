//! An error packet: why the server refuses, in its own words, and what follows.

use super::{
    super::Fault,
    wire::{Malformed, Values},
};
use crate::text::shorten;

/// The first byte of an error packet.
pub const MARK: u8 = 0xff;

/// The login or a right is missing, or there are too many connections. The server works, but does not answer this check:
/// nothing follows for the backend's health. So does the whole class 28 of SQLSTATE (invalid authorization), and
/// the class 42 (syntax error or access rule violation).
const UNDECIDED: &[u16] = &[
    1040, // Too many connections
    1129, // Host is blocked because of many connection errors
    1130, // Host is not allowed to connect
    1203, // User has already more than max_user_connections active connections
    1226, // User has exceeded a resource
    1251, // Client does not support the authentication protocol
    1524, // Plugin is not loaded
    1820, // You must reset your password
    1862, // Your password has expired
    3118, // Account is locked (MySQL)
    3159, // Insecure transport is prohibited
    3955, // Account is locked after failed logins (MySQL)
    4150, // Account is locked after failed logins (MariaDB)
    4151, // Account is locked (MariaDB)
];

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    /// SQLSTATE. Errors before the login have none.
    state: Option<[u8; 5]>,
    /// Printable, and not long.
    pub words: String,
}

impl Refusal {
    /// Reads the payload of an error packet.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut values = Values(payload);
        if values.byte()? != MARK {
            return Err(Malformed::Broken);
        }
        let code = values.short()?;
        let state = match values.0 {
            [b'#', rest @ ..] => {
                values.0 = rest;
                Some(values.array()?)
            }
            _ => None,
        };
        Ok(Self { code, state, words: shorten(&String::from_utf8_lossy(values.0)) })
    }

    /// The user lacks a right.
    pub fn is_about_rights(&self) -> bool {
        // Access denied: a privilege is missing; a table, a column or a routine is not accessible.
        matches!(self.code, 1227 | 1142 | 1143 | 1370)
    }
}

impl From<Refusal> for Fault {
    fn from(Refusal { code, state, words }: Refusal) -> Self {
        let is_ours = state.is_some_and(|state| matches!(&state[..2], b"28" | b"42"));
        let text = format!("the server refuses: {words} (error {code})");
        if is_ours || UNDECIDED.contains(&code) { Self::Undecided(text) } else { Self::Failed(text) }
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An error packet's payload.
    pub fn refusal(code: u16, rest: &str) -> Vec<u8> {
        [&[MARK], &code.to_le_bytes()[..], rest.as_bytes()].concat()
    }

    fn fault(code: u16, rest: &str) -> Fault {
        Refusal::parse(&refusal(code, rest)).unwrap().into()
    }

    #[test]
    fn a_refused_login_does_not_blame_the_backend() {
        for (code, rest) in [
            (1045, "#28000Access denied for user 'xlb'@'10.0.0.1' (using password: YES)"),
            (1044, "#42000Access denied for user"),
            (1698, "#28000Access denied for user"),
            (1130, "Host '10.0.0.1' is not allowed to connect to this MariaDB server"),
            (1129, "Host '10.0.0.1' is blocked because of many connection errors"),
            (1040, "#08004Too many connections"),
            (1040, "Too many connections"),
            (1203, "#42000User xlb already has more than 'max_user_connections' active connections"),
            (1226, "#42000User 'xlb' has exceeded the 'max_connections_per_hour' resource"),
            (1227, "#42000Access denied; you need the SUPER privilege"),
        ] {
            let words = rest.strip_prefix('#').map_or(rest, |rest| &rest[5..]);
            let expected = format!("the server refuses: {words} (error {code})");
            assert_eq!(fault(code, rest), Fault::Undecided(expected));
        }
    }

    #[test]
    fn a_server_that_does_not_work_is_down() {
        for (code, rest) in [
            (1053, "#08S01Server shutdown in progress"),
            (1047, "#08S01WSREP has not yet prepared node for application use"),
            (3032, "#HY000The server is currently in offline mode"),
            (1927, "#70100Connection was killed"),
        ] {
            assert!(matches!(fault(code, rest), Fault::Failed(_)), "{code}");
        }
    }

    #[test]
    fn its_words_are_short_and_cannot_control_the_terminal() {
        let Fault::Failed(text) = fault(1053, &format!("#08S01\u{1b}[2J\n{}", "ä".repeat(40_000))) else {
            panic!("not down");
        };

        assert!(text.chars().count() < 300 && !text.chars().any(char::is_control), "{text}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut payload in any::<Vec<u8>>()) {
            let _ = Refusal::parse(&payload);
            payload.insert(0, MARK);
            let _ = Refusal::parse(&payload);
        }
    }
}
