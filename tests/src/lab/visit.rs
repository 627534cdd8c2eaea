//! Many short connections, fast: connect, send a request, read the answer, close.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    ops::AddAssign,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time,
};

use super::Namespace;

/// Less than TCP's first timeout for a lost SYN (RFC 6298, 2.1: 1 s).
pub const SYN_AGAIN: Duration = Duration::from_millis(900);

/// One HTTP request per connection.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Addresses to connect from, in turn.
    pub from: Vec<IpAddr>,
    /// An endpoint of a service, of the family of all `from`.
    pub to: SocketAddr,
    /// Maximum number of connections: [`visit_while`] may end earlier.
    pub connections: usize,
    /// Maximum number of connections that are open at the same time.
    pub at_once: usize,
    /// Time limit of one connection, from connect to close.
    pub limit: Duration,
}

impl Visit {
    /// A visit with 64 connections at once, and 5 s for each.
    pub fn new(from: &[IpAddr], to: SocketAddr, connections: usize) -> Self {
        Self { from: from.to_vec(), to, connections, at_once: 64, limit: Duration::from_secs(5) }
    }
}

/// Answers by backend, and failures by error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of answers from each backend. A backend answers with its name.
    pub answers: BTreeMap<String, usize>,
    /// Number of failures with each error.
    pub failures: BTreeMap<String, usize>,
}

impl Tally {
    /// Answers of one backend.
    pub fn of(&self, backend: &str) -> usize {
        self.answers.get(backend).copied().unwrap_or_default()
    }

    /// Requests without an answer.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// All were answered, and each of `backends` answered equally often.
    pub fn is_even(&self, backends: usize) -> bool {
        let mut counts = self.answers.values();
        let first = counts.next();
        self.failures.is_empty() && self.answers.len() == backends && counts.all(|count| Some(count) == first)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        for (all, more) in [(&mut self.answers, more.answers), (&mut self.failures, more.failures)] {
            for (what, count) in more {
                *all.entry(what).or_default() += count;
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (backend, count) in &self.answers {
            write!(f, "{backend}: {count}  ")?;
        }
        write!(f, "failed: {}", self.failed())?;
        self.failures.iter().try_for_each(|(why, count)| write!(f, "\n  {count} x {why}"))
    }
}

/// Visits from `namespace`, to the end.
pub fn visit(namespace: &Namespace, visit: &Visit) -> Result<Tally> {
    visit_while(namespace, visit, || true)
}

/// Visits from `namespace` while `goes_on`, at most the wanted number of times.
pub fn visit_while(namespace: &Namespace, visit: &Visit, goes_on: impl Fn() -> bool + Sync) -> Result<Tally> {
    ensure!(!visit.from.is_empty(), "no address to connect from");
    namespace.block_on(async || {
        let mut tally = Tally::default();
        let mut sources = visit.from.iter().cycle().take(visit.connections).take_while(|_| goes_on());
        let mut running = JoinSet::new();
        loop {
            while running.len() < visit.at_once
                && let Some(&source) = sources.next()
            {
                running.spawn(time::timeout(visit.limit, ask(SocketAddr::new(source, 0), visit.to)));
            }
            let Some(ended) = running.join_next().await else {
                return Ok(tally);
            };
            let (counts, what) = match ended? {
                Ok(Ok(answer)) => (&mut tally.answers, answer),
                Ok(Err(error)) => (&mut tally.failures, format!("{error:#}")),
                Err(_) => (&mut tally.failures, format!("no answer within {:?}", visit.limit)),
            };
            *counts.entry(what).or_default() += 1;
        }
    })
}

/// Connects from an address (port 0: any port).
pub async fn connect(from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(from).with_context(|| format!("bind {from}"))?;
    let stream = socket.connect(to).await.context("connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Requests the backend's name, on a connection of its own from `from`.
pub async fn ask(from: SocketAddr, to: SocketAddr) -> Result<String> {
    let mut stream = connect(from, to).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.context("ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("read the answer")?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.trim_end().to_owned()),
        Some(_) | None => bail!("not an answer: {answer:?}"),
    }
}

/// Requests the backend's name on a connection that stays open.
pub async fn ask_again(stream: &mut TcpStream) -> Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").await.context("ask")?;
    let mut answer = String::new();
    loop {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.context("read the answer")?;
        ensure!(count > 0, "the connection ended: {answer:?}");
        answer.push_str(std::str::from_utf8(&bytes[..count])?);
        if let Some((_, body)) = answer.split_once("\r\n\r\n")
            && let Some(name) = body.strip_suffix('\n')
        {
            return Ok(name.to_owned());
        }
    }
}
