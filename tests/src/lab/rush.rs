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

/// Time limit of a connection, from connect to close.
const LIMIT: Duration = Duration::from_secs(10);

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

/// Opens `per_second` connections a second while `goes_on`, from these addresses in turn. Each asks for the backend's name.
pub fn rush(
    namespace: &Namespace,
    from: &[IpAddr],
    to: SocketAddr,
    per_second: u32,
    goes_on: impl Fn() -> bool + Send + Sync,
) -> Result<Vec<Connection>> {
    namespace.block_on(async || {
        let mut running = JoinSet::new();
        let mut ticks = time::interval(Duration::from_secs(1) / per_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for source in from.iter().cycle() {
            ticks.tick().await;
            if !goes_on() {
                break;
            }
            running.spawn(time::timeout(LIMIT, open(SocketAddr::new(*source, 0), to)));
        }
        let mut connections = Vec::new();
        while let Some(ended) = running.join_next().await {
            connections.push(ended??);
        }
        Ok(connections)
    })
}

async fn open(from: SocketAddr, to: SocketAddr) -> Connection {
    let begun = Instant::now();
    match connect(from, to).await {
        Ok(mut stream) => {
            let connected = Ok(begun.elapsed());
            let mut answer = String::new();
            let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.is_ok()
                && stream.read_to_string(&mut answer).await.is_ok();
            let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim_end().to_owned());
            Connection { begun, connected, answer: body.filter(|_| asked) }
        }
        Err(error) => Connection { begun, connected: Err(format!("{error:#}")), answer: None },
    }
}
