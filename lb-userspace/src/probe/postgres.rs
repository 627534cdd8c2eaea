//! `type = "postgres"`: logs in to a PostgreSQL server and asks for its role.
//!
//! ```text
//!   connect ─▶ Limited ─▶ Opening ─▶ login ─▶ query ─▶ state
//!     64 KiB per probe ┘   └ is this PostgreSQL?  ▲         │
//!                                                 └─ kept ◀─┘
//! ```
//!
//! The connection is [kept](super::kept) for the next probe: a new one costs the server a process and a login.

pub(crate) mod caught_up;
mod encrypted;
mod faults;
mod link;
pub(crate) mod opening;
pub(crate) mod state;

use std::time::Duration;

use self::link::Link;
use super::{
    CheckType, Place, Verdict,
    kept::Session,
    login::{DATABASE, PASSWORD_FILE, Password, USER},
    tls_client::{CA, CERT, KEY, SERVER_NAME, TLS, TlsClient, TlsMode},
};
use crate::document::{AnyKey, Keys};

/// Logs in and asks for the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    user: String,
    database: String,
    password: Password,
    client: TlsClient,
}

impl CheckType for Postgres {
    const NAME: &'static str = "postgres";
    const KEYS: &'static [&'static dyn AnyKey] =
        &[&USER, &DATABASE, &PASSWORD_FILE, &TLS, &CA, &SERVER_NAME, &CERT, &KEY];
    const FINDS_ROLES: bool = true;
    const COUNTS_HISTORY: bool = true;
    type Session = Session<Link>;

    fn read(keys: &Keys<'_>) -> Self {
        Self {
            user: keys.or(&USER, "xlb".to_owned()),
            database: keys.or(&DATABASE, "postgres".to_owned()),
            password: Password::of(keys),
            client: TlsClient::read(keys, TlsMode::Off),
        }
    }

    fn check_files(&self) -> Result<(), String> {
        self.client.check_files()?;
        self.password.check_file()
    }

    async fn run(&self, session: &mut Session<Link>, place: Place, limit: Duration) -> Verdict {
        session.probe(self, place, limit).await
    }
}

#[cfg(test)]
mod tests;
