//! A connection to a PostgreSQL server that is logged in.
//!
//! `tokio_postgres` splits it in two: the client, and the connection that does its IO. They are polled together, without
//! a task of their own.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use tokio::{net::TcpStream, time::Instant};
use tokio_postgres::{
    Client, Config, Connection, Error, SimpleQueryMessage,
    config::{SslMode, SslNegotiation},
};

use super::{
    super::{
        Answer, Facts, Fault, Place,
        connect::connect,
        kept,
        limited::{Budget, Limited, limited},
        tls_client::{TlsMode, TlsSession},
    },
    Postgres,
    caught_up::CaughtUp,
    encrypted::{Encrypted, Upgrade},
    faults,
    opening::{Opening, opening},
    state::{self, State},
};

/// What the client reads from.
pub type Stream = Opening<Limited<TcpStream>>;

/// See the [module](self).
pub struct Link {
    /// `None`: it is being closed.
    client: Option<Client>,
    connection: Connection<Stream, Encrypted>,
    budget: Budget,
    /// The connection must not be polled again.
    has_ended: bool,
    /// When the server's certificate ends.
    certificate_ends: Option<SystemTime>,
}

impl kept::Connection for Link {
    type Check = Postgres;
    type Memory = CaughtUp;

    async fn open(check: &Postgres, session: &mut TlsSession, place: Place) -> Result<Self, Fault> {
        let mut config = Config::new();
        config.user(&check.user).dbname(&check.database).application_name("xlb");
        config.ssl_negotiation(SslNegotiation::Postgres).ssl_mode(match check.client.mode {
            TlsMode::Off => SslMode::Disable,
            TlsMode::Require | TlsMode::Verify => SslMode::Require,
        });
        if let Some(password) = check.password.read()? {
            config.password(password);
        }
        let (stream, budget) = limited(connect(place).await?);
        let mut certificate_ends = None;
        let upgrade = Upgrade {
            client: &check.client,
            session,
            address: place.address,
            certificate_ends: &mut certificate_ends,
        };
        let stream = opening(stream, check.client.mode);
        let (client, connection) = config.connect_raw(stream, upgrade).await.map_err(|error| faults::of(&error))?;
        Ok(Self { client: Some(client), connection, budget, has_ended: false, certificate_ends })
    }

    async fn ask(&mut self, check: &Postgres, caught_up: &mut CaughtUp) -> Result<Answer, Fault> {
        let State { report, is_blind } = self.state(caught_up).await?;
        let rights = if is_blind { format!(", but user {} lacks pg_monitor", check.user) } else { String::new() };
        let text = format!("{report}{rights}");
        let certificate_ends = self.certificate_ends;
        Ok(Answer { text, facts: Facts { certificate_ends, role: Some(report), ..Facts::default() } })
    }

    fn is_used_up(&self) -> bool {
        self.budget.is_used_up()
    }
}

impl Link {
    async fn state(&mut self, caught_up: &mut CaughtUp) -> Result<State, Fault> {
        self.budget.renew();
        let asked = Instant::now();
        let rows = self.query(state::QUERY).await.map_err(|error| faults::of(&error))?;
        let rows: Vec<_> = rows.iter().filter_map(row_of).collect();
        let [row] = rows.as_slice() else { return Err(faults::not_understood()) };
        let column = |at| row.try_get(at).ok().flatten();
        let columns: Vec<Option<&str>> = (0..row.len()).map(column).collect();
        State::read(&columns, caught_up, asked).ok_or_else(faults::not_understood)
    }

    async fn query(&mut self, text: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        let Self { client: Some(client), connection, has_ended, .. } = self else { return Ok(Vec::new()) };
        let mut query = pin!(client.simple_query(text));
        poll_fn(|cx| {
            let ended = if *has_ended { None } else { poll_to_end(connection, cx) };
            *has_ended |= ended.is_some();
            // The server's last words come before the end of the connection.
            match (query.as_mut().poll(cx), ended) {
                (Poll::Ready(answer), _) => Poll::Ready(answer),
                (Poll::Pending, Some(Err(error))) => Poll::Ready(Err(error)),
                (Poll::Pending, Some(Ok(())) | None) => Poll::Pending,
            }
        })
        .await
    }
}

/// Does the IO that is possible. `None`: it goes on. Notices are skipped: they are for people.
fn poll_to_end(connection: &mut Connection<Stream, Encrypted>, cx: &mut Context<'_>) -> Option<Result<(), Error>> {
    loop {
        match connection.poll_message(cx) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Some(Err(error)),
            Poll::Ready(None) => return Some(Ok(())),
            Poll::Pending => return None,
        }
    }
}

fn row_of(message: &SimpleQueryMessage) -> Option<&tokio_postgres::SimpleQueryRow> {
    if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None }
}

/// Ends the session as the protocol requires (Terminate), as far as that needs no waiting.
impl Drop for Link {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        self.client = None;
        let mut context = Context::from_waker(Waker::noop());
        // An error does not matter any more.
        let _ = poll_to_end(&mut self.connection, &mut context);
    }
}
