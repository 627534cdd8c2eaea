//! `type = "mysql"`: up if MySQL or MariaDB answers queries. Reports its role.
//!
//! ```text
//!   greeting ─▶ TLS, if configured ─▶ login ─▶ its state ─▶ whom it follows ─▶ role
//!                                              └── each probe ──────┘
//! ```
//!
//! The connection is [kept] for the next probe.

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

use self::{
    connection::{Connection, Login},
    refusal::Refusal,
    rows::Rows,
    status::Status,
};
use super::{
    Answer, CheckType, Facts, Fault, Place, Verdict,
    connect::connect,
    kept::{self, Session},
    login::{PASSWORD_FILE, Password, USER},
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

impl CheckType for Mysql {
    const NAME: &'static str = "mysql";
    const KEYS: &'static [&'static dyn AnyKey] =
        &[&USER, &PASSWORD_FILE, &TLS, &CA, &SERVER_NAME, &CERT, &KEY];
    const FINDS_ROLES: bool = true;
    type Session = Session<Connection>;

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

    async fn run(&self, session: &mut Session<Connection>, place: Place, limit: Duration) -> Verdict {
        session.probe(self, place, limit).await
    }
}

impl kept::Connection for Connection {
    type Check = Mysql;
    type Memory = ();

    async fn open(check: &Mysql, tls: &mut TlsSession, place: Place) -> Result<Self, Fault> {
        let password = check.password.read()?;
        let login = Login { user: &check.user, password: password.as_deref() };
        check.client.prepare(tls)?;
        let stream = connect(place).await?;
        let mut connection = Self::log_in(stream, place.address, (&check.client, tls), &login).await?;
        rows(connection.query(KEEP).await?)?;
        Ok(connection)
    }

    async fn ask(&mut self, _: &Mysql, (): &mut ()) -> Result<Answer, Fault> {
        let engine = self.engine;
        let state = rows(self.query(engine.state_query()).await?)?;
        let replica = match self.query(engine.replica_query()).await? {
            // Of a primary, it has columns and no row. Without columns, it is the answer to another statement.
            rows::Answer::Rows(rows) if rows.has_columns() => rows,
            rows::Answer::Rows(_) => return Err(Fault::Failed("an answer without columns".to_owned())),
            rows::Answer::Refused(refusal) => return Err(no_right(refusal, engine.replica_right())),
        };
        let status = Status::read(&state, &replica)?;
        let role = Some(status.report());
        let facts = Facts { role, certificate_ends: self.certificate_ends, ..Facts::default() };
        Ok(Answer { text: status.to_string(), facts })
    }
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
