//! A connection to a database server, which is kept for the next probe.
//!
//! A kept connection that fails is opened again within the same probe, so that a restart of the server is no failure. After an
//! answer that is not good, the connection ends: a login sees changed rights.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Answer, Fault, Place, Verdict, tls_client::TlsSession};

/// A connection that is kept longer would not notice that the server has another certificate, or that the password has
/// changed.
pub const MAX_AGE: Duration = Duration::from_hours(1);

/// A connection that has logged in.
pub trait Connection: Sized {
    /// The check that it is for.
    type Check;
    /// What is known of the server from former probes. It outlives the connection.
    type Memory: Default + Send;

    /// Connects and logs in.
    async fn open(check: &Self::Check, tls: &mut TlsSession, place: Place) -> Result<Self, Fault>;

    /// Asks the server for its role.
    async fn ask(&mut self, check: &Self::Check, memory: &mut Self::Memory) -> Result<Answer, Fault>;

    /// Has it received as much as one connection may?
    fn is_used_up(&self) -> bool {
        false
    }
}

/// What is kept between two probes. Dropping it ends the connection.
pub struct Session<C: Connection> {
    tls: TlsSession,
    memory: C::Memory,
    /// Since when.
    kept: Option<(Box<C>, Instant)>,
}

impl<C: Connection> Default for Session<C> {
    fn default() -> Self {
        Self { tls: TlsSession::default(), memory: C::Memory::default(), kept: None }
    }
}

impl<C: Connection> Session<C> {
    /// Probes once.
    pub async fn probe(&mut self, check: &C::Check, place: Place, limit: Duration) -> Verdict {
        Verdict::now(timeout(limit, self.ask(check, place)).await.unwrap_or(Err(Fault::Silent)))
    }

    async fn ask(&mut self, check: &C::Check, place: Place) -> Result<Answer, Fault> {
        let may_be_used = |(kept, since): &(Box<C>, Instant)| since.elapsed() < MAX_AGE && !kept.is_used_up();
        // Taken out: a probe that is cancelled leaves no connection with half an answer.
        if let Some((mut kept, since)) = self.kept.take().filter(may_be_used)
            && let Ok(answer) = kept.ask(check, &mut self.memory).await
        {
            self.kept = Some((kept, since));
            return Ok(answer);
        }
        let since = Instant::now();
        let mut opened = Box::new(C::open(check, &mut self.tls, place).await?);
        let answer = opened.ask(check, &mut self.memory).await?;
        self.kept = Some((opened, since));
        Ok(answer)
    }
}
