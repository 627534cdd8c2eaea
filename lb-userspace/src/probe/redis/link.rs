//! A connection to a Redis server: commands and their replies, one after the other.

use std::{io, time::SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    super::{
        Answer, Facts, Fault, Place,
        connect::connect,
        kept,
        limited::{Budget, limited},
        tls_client::{self, TlsMode, TlsSession},
    },
    Redis,
    reply::{self, Malformed, Reply},
    state,
};

/// See the [module](self).
pub struct Link {
    stream: Box<dyn Stream>,
    /// What was received after the last reply.
    received: Vec<u8>,
    budget: Budget,
    /// When the server's certificate ends.
    certificate_ends: Option<SystemTime>,
}

/// With TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl kept::Connection for Link {
    type Check = Redis;
    type Memory = ();

    /// Logs in only if there is a password.
    async fn open(check: &Redis, session: &mut TlsSession, place: Place) -> Result<Self, Fault> {
        let password = check.password.read()?;
        check.client.prepare(session)?;
        let (stream, budget) = limited(connect(place).await?);
        let mut certificate_ends = None;
        let stream: Box<dyn Stream> = match check.client.mode {
            TlsMode::Off => Box::new(stream),
            TlsMode::Require | TlsMode::Verify => {
                let stream = check.client.handshake(session, stream, place.address).await?;
                certificate_ends = tls_client::certificate_ends(&stream);
                Box::new(stream)
            }
        };
        let mut link = Self { stream, received: Vec::new(), budget, certificate_ends };
        if let Some(password) = password {
            let user = check.user.as_deref().map(str::as_bytes);
            let words: Vec<&[u8]> = [Some(b"AUTH".as_slice()), user, Some(&password)].into_iter().flatten().collect();
            link.log_in(&words).await?;
        }
        Ok(link)
    }

    async fn ask(&mut self, _: &Redis, (): &mut ()) -> Result<Answer, Fault> {
        self.budget.renew();
        if let Reply::Error(words) = self.call(&[b"PING"]).await? {
            state::obstacle(&words).map_or(Ok(()), Err)?;
        }
        let report = match self.call(&[b"INFO", b"replication"]).await? {
            Reply::Text(info) => state::read(&info).ok_or_else(not_understood)?,
            Reply::Error(words) => return Err(state::refusal(&words)),
        };
        let (text, certificate_ends) = (report.to_string(), self.certificate_ends);
        Ok(Answer { text, facts: Facts { certificate_ends, role: Some(report), ..Facts::default() } })
    }

    fn is_used_up(&self) -> bool {
        self.budget.is_used_up()
    }
}

impl Link {
    async fn log_in(&mut self, words: &[&[u8]]) -> Result<(), Fault> {
        match self.call(words).await? {
            Reply::Text(_) => Ok(()),
            Reply::Error(words) => Err(state::refusal(&words)),
        }
    }

    async fn call(&mut self, words: &[&[u8]]) -> Result<Reply, Fault> {
        if !self.received.is_empty() {
            // It would be taken for the reply to this command.
            return Err(not_understood());
        }
        // A server may refuse the connection and close it before it has read a command. Its words count.
        let sent = self.send(words).await;
        loop {
            match reply::parse(&self.received) {
                Ok(Some((reply, end))) => {
                    self.received.drain(..end);
                    return Ok(reply);
                }
                Ok(None) => {}
                Err(Malformed) => return Err(not_understood()),
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                sent?;
                let when = if self.received.is_empty() { "without an answer" } else { "in the middle of an answer" };
                return Err(Fault::Failed(format!("closed {when}")));
            }
        }
    }

    async fn send(&mut self, words: &[&[u8]]) -> io::Result<()> {
        self.stream.write_all(&reply::command(words)).await?;
        self.stream.flush().await
    }
}

fn not_understood() -> Fault {
    Fault::Failed("not Redis".to_owned())
}
