//! `type = "dns"`: up if the name server answers a query as expected.
//!
//! One query is sent, once, without EDNS: an answer over UDP that is larger than 512 bytes is cut off by the server.

mod expect;
pub(crate) mod message;
pub(crate) mod name;

use std::time::Duration;

use lb_common::net::Protocol;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use self::{
    expect::{EXPECT_ANSWER, EXPECT_CODE, Expect},
    message::{Question, RecordType, Wrong},
    name::Name,
};
use super::{
    Answer, CheckType, Fault, Place, Verdict,
    connect::{connect, connect_udp},
    farewell::farewell,
};
use crate::{
    document::{AnyKey, Key, Keys, value},
    random,
    text::counted,
};

/// Maximum length of a datagram. Without EDNS, servers send 512 bytes at most (RFC 1035, 4.2.1).
const MAX_DATAGRAM: usize = 4096;

const QUERY_NAME: Key<Name> = Key::new("query_name", |it| Name::parse(value::text(it)?));
const QUERY_TYPE: Key<RecordType> = Key::new("query_type", |it| value::choice(it, "type of record", &[]));
const OVER: Key<Protocol> = Key::new("over", |it| value::choice(it, "protocol", &[]));

/// Asks a name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    question: Question,
    expect: Expect,
    over: Protocol,
}

impl CheckType for Dns {
    const NAME: &'static str = "dns";
    const KEYS: &'static [&'static dyn AnyKey] =
        &[&QUERY_NAME, &QUERY_TYPE, &EXPECT_CODE, &EXPECT_ANSWER, &OVER];
    type Session = ();

    fn read(keys: &Keys<'_>) -> Self {
        if !keys.has(&QUERY_NAME) {
            keys.refuse(&QUERY_NAME, "type = \"dns\" needs the key `query_name`: the name to ask for");
        }
        let name = keys.value(&QUERY_NAME).unwrap_or_else(Name::root);
        let kind = keys.layers.get(&QUERY_TYPE).or_if_absent(RecordType::A);
        Self {
            question: Question { name, kind: kind.unwrap_or(RecordType::A) },
            expect: Expect::read(keys, kind),
            over: keys.or(&OVER, Protocol::Udp),
        }
    }

    fn over(&self) -> Option<Protocol> {
        Some(self.over)
    }

    async fn run(&self, (): &mut (), place: Place, limit: Duration) -> Verdict {
        match self.over {
            Protocol::Udp => self.run_over_udp(place, limit).await,
            Protocol::Tcp => self.run_over_tcp(place, limit).await,
        }
    }
}

impl Dns {
    async fn run_over_udp(&self, place: Place, limit: Duration) -> Verdict {
        let mut unrelated = 0;
        let exchange = self.exchange_datagrams(place, &mut unrelated);
        let answer = timeout(limit, exchange).await;
        Verdict::now(answer.unwrap_or_else(|_| match unrelated {
            0 => Err(Fault::Silent),
            count => Err(Fault::Failed(format!("{} that did not answer the query", counted(count, "datagram")))),
        }))
    }

    /// Datagrams that do not answer the query may be forged: they are counted, and the answer is waited for (RFC 5452,
    /// 9.1).
    async fn exchange_datagrams(&self, place: Place, unrelated: &mut u64) -> Result<Answer, Fault> {
        let (id, query) = self.query()?;
        let socket = connect_udp(place).await?;
        socket.send(&query).await?;
        let mut buffer = [0; MAX_DATAGRAM + 1];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if length > MAX_DATAGRAM {
                return Err(Fault::Failed(format!("an answer of more than {MAX_DATAGRAM} bytes")));
            }
            match message::parse(id, &self.question, &buffer[..length]) {
                Ok(reply) => return self.expect.judge(&reply),
                Err(Wrong::Unrelated) => *unrelated += 1,
                Err(wrong @ Wrong::Malformed) => return Err(wrong.into()),
            }
        }
    }

    async fn run_over_tcp(&self, place: Place, limit: Duration) -> Verdict {
        let exchange = async {
            let mut stream = connect(place).await?;
            let answer = self.exchange(&mut stream).await;
            Ok((answer, stream))
        };
        match timeout(limit, exchange).await.unwrap_or(Err(Fault::Silent)) {
            Ok((answer, mut stream)) => {
                let verdict = Verdict::now(answer);
                farewell(&mut stream).await;
                verdict
            }
            Err(fault) => Verdict::now(Err(fault)),
        }
    }

    /// Messages over a stream follow their length (RFC 1035, 4.2.2).
    async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> Result<Answer, Fault> {
        let (id, query) = self.query()?;
        // A name has at most 255 bytes.
        let length = (query.len() as u16).to_be_bytes();
        // In one segment (RFC 7766, 8).
        stream.write_all(&[&length[..], &query].concat()).await?;
        let mut received = Vec::new();
        stream.take(2).read_to_end(&mut received).await?;
        let Some(length) = received.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes)) else {
            return Err(Fault::Failed("closed without an answer".to_owned()));
        };
        received.clear();
        stream.take(length.into()).read_to_end(&mut received).await?;
        if received.len() < usize::from(length) {
            return Err(Fault::Failed("closed before the end of the answer".to_owned()));
        }
        self.expect.judge(&message::parse(id, &self.question, &received)?)
    }

    /// With an id that others cannot guess.
    fn query(&self) -> Result<(u16, Vec<u8>), Fault> {
        let bytes = random::bytes().map_err(|error| Fault::local(format!("cannot read /dev/urandom: {error}")))?;
        let id = u16::from_be_bytes(bytes);
        Ok((id, message::query(id, &self.question)))
    }
}

impl From<Wrong> for Fault {
    fn from(wrong: Wrong) -> Self {
        Self::Failed(match wrong {
            Wrong::Unrelated => "not an answer to the query".to_owned(),
            Wrong::Malformed => "a malformed DNS message".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
