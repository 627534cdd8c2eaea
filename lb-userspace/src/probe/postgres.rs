//! `type = "postgres"`: logs in to a PostgreSQL server and asks for its role.
//!
//! ```text
//!   connect ─▶ Limited ─▶ Opening ─▶ login ─▶ query ─▶ state
//!     64 KiB per probe ┘   └ is this PostgreSQL?  ▲         │
//!                                                 └─ kept ◀─┘
//! ```
//!
//! The connection is kept for the next probe: a new one costs the server a process and a login. One that fails is
//! opened again within the same probe.

mod encrypted;
mod faults;
mod link;
pub(crate) mod opening;
pub(crate) mod state;

use std::time::Duration;

use tokio::time::timeout;

use self::link::Link;
use super::{
    Answer, CheckType, Facts, Fault, Place, Verdict,
    login::{DATABASE, PASSWORD_FILE, Password, USER},
    tls_client::{CA, CERT, KEY, SERVER_NAME, TLS, TlsClient, TlsMode, TlsSession},
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

/// What is kept between two probes. The connection is closed with it.
#[derive(Default)]
pub struct Session {
    tls: TlsSession,
    link: Option<Box<Link>>,
}

impl CheckType for Postgres {
    const NAME: &'static str = "postgres";
    const KEYS: &'static [&'static dyn AnyKey] =
        &[&USER, &DATABASE, &PASSWORD_FILE, &TLS, &CA, &SERVER_NAME, &CERT, &KEY];
    const FINDS_ROLES: bool = true;
    const COUNTS_HISTORY: bool = true;
    type Session = Session;

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

    async fn run(&self, session: &mut Session, place: Place, limit: Duration) -> Verdict {
        Verdict::now(timeout(limit, self.probe(session, place)).await.unwrap_or(Err(Fault::Silent)))
    }
}

impl Postgres {
    async fn probe(&self, session: &mut Session, place: Place) -> Result<Answer, Fault> {
        let kept = session.link.take().filter(|kept| kept.may_be_used_again());
        if let Some(kept) = kept
            && let Ok(answer) = self.ask(kept, session).await
        {
            return Ok(answer);
        }
        let link = Link::open(self, &mut session.tls, place).await?;
        self.ask(Box::new(link), session).await
    }

    /// Keeps the connection if the server answers.
    async fn ask(&self, mut link: Box<Link>, session: &mut Session) -> Result<Answer, Fault> {
        let state = link.ask().await?;
        let certificate_ends = link.certificate_ends;
        session.link = Some(link);

        let rights = if state.is_blind { format!(", but user {} lacks pg_monitor", self.user) } else { String::new() };
        let text = format!("{}{rights}", state.report);
        Ok(Answer { text, facts: Facts { certificate_ends, role: Some(state.report), ..Facts::default() } })
    }
}

#[cfg(test)]
mod tests;
