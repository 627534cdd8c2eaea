//! `type = "redis"`: asks a Redis or Valkey server for its role.
//!
//! ```text
//!   connect ─▶ Limited ─▶ TLS ─▶ AUTH ─▶ PING ─▶ INFO replication ─▶ state
//!      64 KiB per probe ┘               ▲                              │
//!                                       └──────────── kept ◀───────────┘
//! ```
//!
//! PING comes first: a server that is loading its data refuses it, while INFO says that it is a master. Three commands whose
//! replies are a line or a string need no client of another crate, which would read replies of any depth.
//!
//! The connection is [kept](super::kept) for the next probe. It is closed without QUIT: Redis logs neither end of a connection.

mod link;
pub(crate) mod reply;
pub(crate) mod state;

use std::time::Duration;

use self::link::Link;
use super::{
    CheckType, Place, Verdict,
    kept::Session,
    login::{PASSWORD_FILE, Password, USER},
    tls_client::{CA, CERT, KEY, SERVER_NAME, TLS, TlsClient, TlsMode},
};
use crate::document::{AnyKey, Keys};

/// Asks for the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// `None`: the default user.
    user: Option<String>,
    password: Password,
    client: TlsClient,
}

impl CheckType for Redis {
    const NAME: &'static str = "redis";
    const KEYS: &'static [&'static dyn AnyKey] =
        &[&USER, &PASSWORD_FILE, &TLS, &CA, &SERVER_NAME, &CERT, &KEY];
    const FINDS_ROLES: bool = true;
    const COUNTS_HISTORY: bool = true;
    type Session = Session<Link>;

    fn read(keys: &Keys<'_>) -> Self {
        if keys.layers.own_place(&USER).is_some() && !keys.has(&PASSWORD_FILE) {
            keys.refuse(&USER, "`user` needs the key `password_file`: Redis has no login without a password");
        }
        Self {
            user: keys.value(&USER),
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
