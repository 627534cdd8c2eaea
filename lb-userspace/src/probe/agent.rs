//! `type = "agent"`: a program on the server says how it is, as with HAProxy's agent check.
//!
//! It sends one line and closes. Beside the health, the line may have an administrative state and a weight, which the
//! controller keeps until the agent says something else.

pub(crate) mod line;

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use toml::de::DeValue;

use super::{
    Answer, CheckType, Facts, Fault, Place, Verdict, connect::connect, farewell::farewell,
};
use crate::{
    document::{AnyKey, Key, Keys, value},
    spec::AdminState,
    text::{printable, quote},
};

/// Maximum length of a line, without its end.
const LINE_MAX_BYTES: usize = 256;
/// Maximum length of what is sent.
const MAX_SEND: usize = 256;

const AGENT_SEND: Key<String> = Key::new("agent_send", agent_send);

/// Asks an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Sent after the connection is made. Empty: nothing.
    send: String,
}

/// What an agent has said besides the health. `None`: nothing, so what it said before still counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentReport {
    /// `ready` ends the others.
    pub state: Option<AdminState>,
    /// 0: no new flows.
    pub weight: Option<WeightPercent>,
}

/// A percentage of the configured weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeightPercent(pub u32);

impl WeightPercent {
    /// The configured weight.
    pub const ALL: Self = Self(100);
    /// That of HAProxy.
    pub const MOST: Self = Self(25_600);
}

/// What is kept between two lines.
#[derive(Default)]
pub struct AgentSession {
    /// The last line that said "down", if none has said "up" since.
    down: Option<String>,
}

impl CheckType for Agent {
    const NAME: &'static str = "agent";
    const KEYS: &'static [&'static dyn AnyKey] = &[&AGENT_SEND];
    type Session = AgentSession;

    fn read(keys: &Keys<'_>) -> Self {
        Self { send: keys.or(&AGENT_SEND, String::new()) }
    }

    async fn run(&self, session: &mut AgentSession, place: Place, limit: Duration) -> Verdict {
        let exchange = async {
            let mut stream = connect(place).await?;
            let line = self.ask(&mut stream).await;
            Ok((line, stream))
        };
        match timeout(limit, exchange).await.unwrap_or(Err(Fault::Silent)) {
            Ok((line, mut stream)) => {
                let verdict = Verdict::now(line.and_then(|line| session.judge(&line)));
                farewell(&mut stream).await;
                verdict
            }
            Err(fault) => Verdict::now(Err(fault)),
        }
    }
}

impl Agent {
    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> Result<Vec<u8>, Fault> {
        // An agent may answer and close before it has read anything. The answer counts.
        let sent = stream.write_all(self.send.as_bytes()).await;
        let line = read_line(stream).await?;
        if line.is_empty() {
            sent?;
        }
        Ok(line)
    }
}

impl AgentSession {
    fn judge(&mut self, line: &[u8]) -> Result<Answer, Fault> {
        let text = printable(String::from_utf8_lossy(line).trim());
        let said = line::parse(line)
            .ok_or_else(|| Fault::Failed(format!("not an agent's line: {}", quote(&text))))?;
        match said.is_up {
            Some(true) => self.down = None,
            Some(false) => self.down = Some(text.clone()),
            None => {}
        }
        let answer = |text| Answer { text, facts: Facts { agent: Some(said.report), ..Facts::default() } };
        match &self.down {
            None => Ok(answer(text)),
            Some(down) if *down == text => Err(Fault::Reported(Box::new(answer(text)))),
            Some(down) => {
                Err(Fault::Reported(Box::new(answer(format!("{text}; it said {} before", quote(down))))))
            }
        }
    }
}

/// Reads until a line ends or the agent closes.
pub(crate) async fn read_line<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Fault> {
    let mut received = Vec::new();
    let mut limited = stream.take(LINE_MAX_BYTES as u64 + 1);
    loop {
        let count = limited.read_buf(&mut received).await?;
        let end = received.iter().position(|byte| b"\r\n".contains(byte));
        if let Some(end) = end {
            received.truncate(end);
            return Ok(received);
        }
        if received.len() > LINE_MAX_BYTES {
            return Err(Fault::Failed(format!("a line longer than {LINE_MAX_BYTES} bytes")));
        }
        if count == 0 {
            return Ok(received);
        }
    }
}

fn agent_send(value: &DeValue<'_>) -> Result<String, String> {
    let text = value::text(value)?;
    if text.len() > MAX_SEND {
        return Err(format!("a text of {} bytes is too long: at most {MAX_SEND}", text.len()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
