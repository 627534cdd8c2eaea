//! `type = "mysql"`: up if MySQL or MariaDB answers queries. Reports its role.
//!
//! ```text
//!   greeting ─▶ TLS, if configured ─▶ login ─▶ its state ─▶ whom it follows ─▶ role
//!                                              └── each probe ──────┘
//! ```
//!
//! The connection is kept for the next probe. A probe whose kept connection fails opens another one, so that a restart of the
//! server is no failure. After an answer that is not good, the connection ends, because a login sees changed rights.

mod connection;
pub(crate) mod engine;
pub(crate) mod greeting;
pub(crate) mod handshake;
mod password;
pub(crate) mod refusal;
pub(crate) mod rows;
pub(crate) mod status;
pub(crate) mod wire;

use std::time::Duration;

use tokio::time::timeout;

use self::{
    connection::{Connection, Login},
    refusal::Refusal,
    rows::Rows,
    status::Status,
};
use super::{
    Answer, CheckType, Facts, Fault, Place, Verdict,
    connect::connect,
    login::{CONNECTION_MAX_AGE, PASSWORD_FILE, Password, USER},
    tls_client::{CA, CERT, KEY, SERVER_NAME, TLS, TlsClient, TlsMode, TlsSession},
};
use crate::document::{AnyKey, Keys};

const DEFAULT_USER: &str = "xlb";
/// Longer than any interval, so that the server does not end the connection between two probes and log that.
const KEEP: &str = "SET SESSION wait_timeout = 7200";

/// A login and two queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mysql {
    user: String,
    password: Password,
    client: TlsClient,
}

/// The connection of the last probe, if it was good.
#[derive(Default)]
pub struct Session {
    tls: TlsSession,
    kept: Option<Connection>,
}

impl CheckType for Mysql {
    const NAME: &'static str = "mysql";
    const KEYS: &'static [&'static dyn AnyKey] =
        &[&USER, &PASSWORD_FILE, &TLS, &CA, &SERVER_NAME, &CERT, &KEY];
    const FINDS_ROLES: bool = true;
    type Session = Session;

    fn read(keys: &Keys<'_>) -> Self {
        Self {
            user: keys.or(&USER, DEFAULT_USER.to_owned()),
            password: Password::of(keys),
            client: TlsClient::read(keys, TlsMode::Off),
        }
    }

    fn check_files(&self) -> Result<(), String> {
        self.password.check_file()?;
        self.client.check_files()
    }

    async fn run(&self, session: &mut Session, place: Place, limit: Duration) -> Verdict {
        Verdict::now(timeout(limit, self.probe(session, place)).await.unwrap_or(Err(Fault::Silent)))
    }
}

impl Mysql {
    async fn probe(&self, session: &mut Session, place: Place) -> Result<Answer, Fault> {
        if let Some(mut kept) = session.kept.take().filter(|kept| kept.opened.elapsed() < CONNECTION_MAX_AGE)
            && let Ok(answer) = ask(&mut kept).await
        {
            session.kept = Some(kept);
            return Ok(answer);
        }
        let mut connection = self.open(&mut session.tls, place).await?;
        let answer = ask(&mut connection).await?;
        session.kept = Some(connection);
        Ok(answer)
    }

    async fn open(&self, tls: &mut TlsSession, place: Place) -> Result<Connection, Fault> {
        let password = self.password.read()?;
        let login = Login { user: &self.user, password: password.as_deref() };
        self.client.prepare(tls)?;
        let stream = connect(place).await?;
        let mut connection = Connection::open(stream, place.address, (&self.client, tls), &login).await?;
        rows(connection.query(KEEP).await?)?;
        Ok(connection)
    }
}

/// Asks for the role.
async fn ask(connection: &mut Connection) -> Result<Answer, Fault> {
    let engine = connection.engine;
    let state = rows(connection.query(engine.state_query()).await?)?;
    let replica = match connection.query(engine.replica_query()).await? {
        // Of a primary, it has columns and no row. Without columns, it is the answer to another statement.
        rows::Answer::Rows(rows) if rows.has_columns() => rows,
        rows::Answer::Rows(_) => return Err(Fault::Failed("an answer without columns".to_owned())),
        rows::Answer::Refused(refusal) => return Err(no_right(refusal, engine.replica_right())),
    };
    let status = Status::read(&state, &replica)?;
    let role = Some(status.report());
    let facts = Facts { role, certificate_ends: connection.certificate_ends, ..Facts::default() };
    Ok(Answer { text: status.to_string(), facts })
}

fn rows(answer: rows::Answer) -> Result<Rows, Fault> {
    match answer {
        rows::Answer::Rows(rows) => Ok(rows),
        rows::Answer::Refused(refusal) => Err(refusal.into()),
    }
}

/// A server that takes writes may be a replica all the same: its role is unknown.
fn no_right(refusal: Refusal, right: &str) -> Fault {
    if refusal.is_about_rights() {
        let words = refusal.words;
        return Fault::Undecided(format!("its role is unknown, run GRANT {right} ON *.* for the user of this check: {words}"));
    }
    refusal.into()
}

#[cfg(test)]
mod tests;
