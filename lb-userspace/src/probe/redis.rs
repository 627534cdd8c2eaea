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
//! The connection is kept for the next probe; one that fails is opened again within the same probe. It is closed without
//! QUIT: Redis logs neither end of a connection.

mod link;
pub(crate) mod reply;
pub(crate) mod state;

use std::time::Duration;

use tokio::time::timeout;

use self::link::Link;
use super::{
    Answer, CheckType, Facts, Fault, Place, Verdict,
    login::{PASSWORD_FILE, Password, USER},
    tls_client::{CA, CERT, KEY, SERVER_NAME, TLS, TlsClient, TlsMode, TlsSession},
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

/// What is kept between two probes.
#[derive(Default)]
pub struct Session {
    tls: TlsSession,
    link: Option<Link>,
}

impl CheckType for Redis {
    const NAME: &'static str = "redis";
    const KEYS: &'static [&'static dyn AnyKey] =
        &[&USER, &PASSWORD_FILE, &TLS, &CA, &SERVER_NAME, &CERT, &KEY];
    const FINDS_ROLES: bool = true;
    const COUNTS_HISTORY: bool = true;
    type Session = Session;

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

    async fn run(&self, session: &mut Session, place: Place, limit: Duration) -> Verdict {
        Verdict::now(timeout(limit, self.probe(session, place)).await.unwrap_or(Err(Fault::Silent)))
    }
}

impl Redis {
    async fn probe(&self, session: &mut Session, place: Place) -> Result<Answer, Fault> {
        let kept = session.link.take().filter(Link::may_be_used_again);
        if let Some(kept) = kept
            && let Ok(answer) = ask(kept, session).await
        {
            return Ok(answer);
        }
        let link = Link::open(self, &mut session.tls, place).await?;
        ask(link, session).await
    }
}

/// Keeps the connection if the server answers.
async fn ask(mut link: Link, session: &mut Session) -> Result<Answer, Fault> {
    let report = link.ask().await?;
    let certificate_ends = link.certificate_ends;
    session.link = Some(link);
    Ok(Answer { text: report.to_string(), facts: Facts { certificate_ends, role: Some(report), ..Facts::default() } })
}

#[cfg(test)]
mod tests;
