//! A connection to a MySQL server: the login, and queries.
//!
//! A handshake that the client breaks off counts as a connection error of this host, and after `max_connect_errors` of them the
//! server locks the host out. A login that the server refuses does not count. So every handshake goes on until the server
//! ends it, with an anonymous login if need be: also if the server lacks TLS, or its certificate is not good.

use std::{net::SocketAddr, time::SystemTime};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{
    super::{
        Fault,
        tls_client::{self, TlsClient, TlsMode, TlsSession},
    },
    engine::Engine,
    greeting::{Greeting, NoGreeting},
    handshake::{self, IsOverTls, Reply},
    password::Plugin,
    refusal::{self, Refusal},
    rows::{Answer, Reading},
    wire::{ANSWER_MAX_BYTES, Malformed, Packets},
};
use crate::{
    named::{self, Named as _},
    text::quote,
};

/// The most answers of a server to one login: more than any plugin needs.
const ANSWERS: usize = 5;
const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;

/// Who logs in.
pub struct Login<'l> {
    pub user: &'l str,
    pub password: Option<&'l [u8]>,
}

/// A connection that has logged in. Dropping it ends the session, which the server otherwise counts and logs as an aborted client.
pub struct Connection {
    channel: Channel,
    pub engine: Engine,
    pub certificate_ends: Option<SystemTime>,
}

/// A connection over TLS or not.
type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Exchanges packets.
struct Channel {
    stream: Stream,
    packets: Packets,
}

impl Connection {
    /// Logs in.
    pub async fn log_in(
        stream: TcpStream,
        address: SocketAddr,
        (client, session): (&TlsClient, &mut TlsSession),
        login: &Login<'_>,
    ) -> Result<Self, Fault> {
        let mut channel = Channel { stream: Either::Left(stream), packets: Packets::default() };
        let greeting = channel.greeting().await?;
        if client.mode != TlsMode::Off {
            if !greeting.has_tls() {
                channel.log_in_anonymously(&greeting).await;
                return Err(Fault::Failed("the server has no TLS".to_owned()));
            }
            let verified;
            (channel, verified) = channel.encrypt(client, session, address).await?;
            if let Err(fault) = verified {
                channel.log_in_anonymously(&greeting).await;
                return Err(fault);
            }
        }
        channel.log_in(&greeting, login).await?;
        let certificate_ends = match &channel.stream {
            Either::Left(_) => None,
            Either::Right(tls) => tls_client::certificate_ends(tls),
        };
        Ok(Self { channel, engine: Engine::of(&greeting.version), certificate_ends })
    }

    /// Asks.
    pub async fn query(&mut self, query: &str) -> Result<Answer, Fault> {
        if !self.channel.packets.is_empty() {
            return Err(Fault::Failed("an answer without a question".to_owned()));
        }
        let command = [&[COM_QUERY], query.as_bytes()].concat();
        let packet = self.channel.packets.first(&command);
        self.channel.send(&packet).await?;
        let mut reading = Reading::default();
        loop {
            if let Some(answer) = reading.push(&self.channel.receive().await?)? {
                return Ok(answer);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let packet = self.channel.packets.first(&[COM_QUIT]);
        // The socket's buffer has room for it, as the server has answered everything else. An error means that there is
        // no session to end.
        match &mut self.channel.stream {
            Either::Left(stream) => drop(stream.try_write(&packet)),
            Either::Right(tls) => drop(leave(tls, &packet)),
        }
    }
}

/// Sends this and the end of the TLS connection, without waiting.
fn leave(tls: &mut TlsStream<TcpStream>, packet: &[u8]) -> std::io::Result<()> {
    let (stream, tls) = tls.get_mut();
    std::io::Write::write_all(&mut tls.writer(), packet)?;
    tls.send_close_notify();
    let mut records = Vec::new();
    tls.write_tls(&mut records)?;
    while tls.wants_write() {
        tls.write_tls(&mut records)?;
    }
    stream.try_write(&records).map(drop)
}

impl Channel {
    async fn greeting(&mut self) -> Result<Greeting, Fault> {
        let not_mysql = || Fault::Failed("not MySQL".to_owned());
        let payload = self.packet().await?.map_err(|_| not_mysql())?;
        if payload.first() == Some(&refusal::MARK) {
            return Err(Refusal::parse(&payload).map_or_else(|_| not_mysql(), Fault::from));
        }
        Greeting::parse(&payload).map_err(|error| match error {
            NoGreeting::NotMysql => not_mysql(),
            NoGreeting::TooOld => Fault::Failed("a server older than MySQL 4.1".to_owned()),
        })
    }

    /// Also returns whether the server is the right one. What it sends before TLS begins is not authenticated.
    async fn encrypt(
        mut self,
        client: &TlsClient,
        session: &mut TlsSession,
        address: SocketAddr,
    ) -> Result<(Self, Result<(), Fault>), Fault> {
        self.send_next(&handshake::tls_request()).await?;
        let Self { stream: Either::Left(stream), packets } = self else {
            return Err(Fault::Failed("TLS within TLS".to_owned()));
        };
        if !packets.is_empty() {
            return Err(Fault::Failed("not MySQL: more than a greeting".to_owned()));
        }
        let (tls, verified) = client.handshake_then_verify(session, stream, address).await?;
        Ok((Self { stream: Either::Right(Box::new(tls)), packets }, verified))
    }

    async fn log_in(&mut self, greeting: &Greeting, login: &Login<'_>) -> Result<(), Fault> {
        // The user's own plugin may be another one. Then the server asks for it.
        let suggested = named::find(&greeting.plugin).unwrap_or(Plugin::Native);
        let proof = suggested.prove(login.password, &greeting.nonce);
        let request = handshake::request(login.user, &proof, suggested.name(), self.is_over_tls());
        self.send_next(&request).await?;
        for _ in 0..ANSWERS {
            match Reply::parse(&self.receive().await?)? {
                Reply::Welcome => return Ok(()),
                Reply::Refused(refusal) => return Err(refusal.into()),
                Reply::Proven => {}
                Reply::Switch { plugin, nonce } => match named::find::<Plugin>(&plugin) {
                    Some(plugin) => self.send_next(&plugin.prove(login.password, &nonce)).await?,
                    None => {
                        self.be_refused(impossible_proof(&plugin)).await;
                        return Err(unknown_plugin(login.user, &plugin));
                    }
                },
                Reply::PasswordWanted if self.is_over_tls() == IsOverTls::Yes => {
                    let password = [login.password.unwrap_or_default(), &[0]].concat();
                    self.send_next(&password).await?;
                }
                Reply::PasswordWanted => {
                    self.be_refused(Vec::new()).await;
                    return Err(Fault::Undecided(format!(
                        "the server does not remember the login of {}, or it is wrong: set `tls`, or log in once by \
                         another client",
                        quote(login.user)
                    )));
                }
            }
        }
        Err(Malformed::Broken.into())
    }

    /// A login that the server refuses.
    async fn log_in_anonymously(&mut self, greeting: &Greeting) {
        self.be_refused(handshake::request("", b"", &greeting.plugin, self.is_over_tls())).await;
    }

    /// Goes on with this, and then with wrong proofs, until the server ends the login. What it says does not matter.
    async fn be_refused(&mut self, mut payload: Vec<u8>) {
        for _ in 0..ANSWERS {
            let answer = match self.send_next(&payload).await {
                Ok(()) => self.receive().await,
                Err(fault) => Err(fault),
            };
            match answer.as_deref().map(Reply::parse) {
                // MariaDB asks an unknown user for the plugin of another one, so that names cannot be guessed.
                Ok(Ok(Reply::Switch { plugin, .. })) => payload = impossible_proof(&plugin),
                Ok(Ok(Reply::PasswordWanted | Reply::Proven)) => payload.clear(),
                // A user without a name and a password exists here.
                Ok(Ok(Reply::Welcome)) => {
                    let packet = self.packets.first(&[COM_QUIT]);
                    // An error means that there is no session to end.
                    let _ = self.send(&packet).await;
                    return;
                }
                Ok(Ok(Reply::Refused(_)) | Err(_)) | Err(_) => return,
            }
        }
    }

    fn is_over_tls(&self) -> IsOverTls {
        match self.stream {
            Either::Left(_) => IsOverTls::No,
            Either::Right(_) => IsOverTls::Yes,
        }
    }

    async fn send_next(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let packet = self.packets.next(payload);
        self.send(&packet).await
    }

    async fn send(&mut self, packet: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(packet).await?;
        Ok(self.stream.flush().await?)
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Fault> {
        Ok(self.packet().await??)
    }

    /// The next packet's payload.
    async fn packet(&mut self) -> Result<Result<Vec<u8>, Malformed>, Fault> {
        let mut buffer = [0; 4096];
        loop {
            match self.packets.take() {
                Ok(Some(payload)) => return Ok(Ok(payload)),
                Ok(None) => {}
                Err(malformed) => return Ok(Err(malformed)),
            }
            match self.stream.read(&mut buffer).await? {
                0 if self.packets.is_empty() => {
                    return Err(Fault::Failed("closed without an answer".to_owned()));
                }
                0 => return Err(Fault::Failed("closed within an answer".to_owned())),
                count => self.packets.push(&buffer[..count]),
            }
        }
    }
}

/// What a plugin takes for a wrong proof. `client_ed25519` takes one of another length for a broken handshake.
fn impossible_proof(plugin: &str) -> Vec<u8> {
    const ED25519_BYTES: usize = 64;
    if plugin == "client_ed25519" { vec![0; ED25519_BYTES] } else { Vec::new() }
}

fn unknown_plugin(user: &str, plugin: &str) -> Fault {
    Fault::Undecided(format!(
        "the user {} has the plugin {}, which xlb lacks: use {} or {}",
        quote(user),
        quote(plugin),
        Plugin::Native.name(),
        Plugin::CachingSha2.name()
    ))
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Failed(match malformed {
            Malformed::TooLong => format!("answer longer than {} KiB", ANSWER_MAX_BYTES / 1024),
            Malformed::TooManyColumns => "answer with too many columns".to_owned(),
            Malformed::TooManyRows => "answer with too many rows".to_owned(),
            Malformed::OutOfOrder => "packets out of order".to_owned(),
            Malformed::Broken => "a broken packet".to_owned(),
        })
    }
}
