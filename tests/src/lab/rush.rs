//! New connections at a steady rate, each with the time that it took to connect.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use super::{Namespace, visit::connect};

/// What to open.
#[derive(Clone, Debug)]
pub struct Rush {
    /// The addresses to connect from and to, in turn.
    pub ways: Vec<(IpAddr, SocketAddr)>,
    /// Connections that begin in a second.
    pub per_second: u32,
    /// Time limit of a connection, from connect to close.
    pub limit: Duration,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// When it began.
    pub begun: Instant,
    /// How long connecting took, or why it failed.
    pub connected: Result<Duration, String>,
    /// The answer to a request: the backend's name. `None`: the connection broke.
    pub answer: Option<String>,
}

impl Rush {
    /// Opens connections while `goes_on`. Each asks for the backend's name.
    pub fn run(
        &self,
        namespace: &Namespace,
        goes_on: impl Fn() -> bool + Send + Sync,
    ) -> Result<Vec<Connection>> {
        namespace.block_on(async || {
            let mut running = JoinSet::new();
            let mut ticks = time::interval(Duration::from_secs(1) / self.per_second);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for &(from, to) in self.ways.iter().cycle() {
                ticks.tick().await;
                if !goes_on() {
                    break;
                }
                running.spawn(open(SocketAddr::new(from, 0), to, self.limit));
            }
            let mut connections = Vec::new();
            while let Some(ended) = running.join_next().await {
                connections.push(ended?);
            }
            Ok(connections)
        })
    }
}

async fn open(from: SocketAddr, to: SocketAddr, limit: Duration) -> Connection {
    let begun = Instant::now();
    let mut connection = Connection { begun, connected: Err(format!("not within {limit:?}")), answer: None };
    // What it did until then counts.
    let _ = time::timeout(limit, ask(&mut connection, from, to)).await;
    connection
}

async fn ask(connection: &mut Connection, from: SocketAddr, to: SocketAddr) {
    match connect(from, to).await {
        Ok(mut stream) => {
            connection.connected = Ok(connection.begun.elapsed());
            let mut answer = String::new();
            let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.is_ok()
                && stream.read_to_string(&mut answer).await.is_ok();
            let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim_end().to_owned());
            connection.answer = body.filter(|_| asked);
        }
        Err(error) => connection.connected = Err(format!("{error:#}")),
    }
}
