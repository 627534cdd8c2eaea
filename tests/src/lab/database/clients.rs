//! An application: writers that append numbered rows and connect again after an error, and readers.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use anyhow::{Result as Outcome, bail};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};

use super::{READS, Scene, WRITES};
use crate::lab::{Namespace, postgres};

const WRITERS: u32 = 200;
const READERS: u32 = 50;
/// Between two rows of a writer, and two questions of a reader.
const PAUSE: Duration = Duration::from_millis(150);
/// After an error, before the next attempt.
const AGAIN: Duration = Duration::from_millis(100);
/// A statement that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(2);

/// A row that a writer knows to be committed.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The writer, and the number of the row.
    pub key: (u32, u32),
    /// The server that took it.
    pub server: IpAddr,
}

/// What the writers have seen.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// Rows that were acknowledged.
    pub acks: Vec<Ack>,
    /// Connections and statements that failed.
    pub errors: usize,
}

/// What the readers have seen.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// Answers, with the server that gave them.
    pub answers: Vec<(SystemTime, IpAddr)>,
    /// Statements that failed, with the server that was asked, and attempts to connect that failed.
    pub errors: Vec<(SystemTime, Option<IpAddr>, String)>,
}

/// Running clients. Dropping it stops them.
pub struct Clients {
    stop: Arc<AtomicBool>,
    writes: Arc<Mutex<Writes>>,
    reads: Arc<Mutex<Reads>>,
    thread: Option<JoinHandle<Outcome<()>>>,
}

impl Clients {
    pub(super) fn start(namespace: &Namespace) -> Self {
        let (stop, writes, reads) = <(Arc<AtomicBool>, Arc<Mutex<Writes>>, Arc<Mutex<Reads>>)>::default();
        let shared = (Arc::clone(&stop), Arc::clone(&writes), Arc::clone(&reads));
        let thread = namespace.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (stop, writes, reads) = shared;
                let mut tasks = tokio::task::JoinSet::new();
                for number in 0..WRITERS {
                    tasks.spawn(write(number, Arc::clone(&stop), Arc::clone(&writes)));
                }
                for _ in 0..READERS {
                    tasks.spawn(read(Arc::clone(&stop), Arc::clone(&reads)));
                }
                while let Some(ended) = tasks.join_next().await {
                    ended?;
                }
                Ok(())
            })
        });
        Self { stop, writes, reads, thread: Some(thread) }
    }

    /// The number of acknowledged rows so far that this server took.
    pub fn acknowledged_by(&self, server: IpAddr) -> usize {
        locked(&self.writes).acks.iter().filter(|ack| ack.server == server).count()
    }

    /// Stops the clients.
    pub fn stop(mut self) -> Outcome<(Writes, Reads)> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            bail!("the clients panicked");
        }
        Ok((locked(&self.writes).clone(), locked(&self.reads).clone()))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn write(number: u32, stop: Arc<AtomicBool>, writes: Arc<Mutex<Writes>>) {
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let client = connect(WRITES).await;
        while let Some(client) = &client
            && !stop.load(Ordering::Relaxed)
        {
            let key = (number, next);
            next += 1;
            let Some(server) = append(client, key).await else { break };
            locked(&writes).acks.push(Ack { key, server });
            sleep(PAUSE).await;
        }
        locked(&writes).errors += 1;
        sleep(AGAIN).await;
    }
}

async fn append(client: &Client, (writer, n): (u32, u32)) -> Option<IpAddr> {
    let insert = "insert into rows(writer, n) values ($1, $2) returning server";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
        [&writer.cast_signed(), &n.cast_signed()];
    let row = timeout(LIMIT, client.query_one(insert, &parameters)).await.ok()?.ok()?;
    row.try_get(0).ok()
}

async fn read(stop: Arc<AtomicBool>, reads: Arc<Mutex<Reads>>) {
    while !stop.load(Ordering::Relaxed) {
        let Some(client) = connect(READS).await else {
            locked(&reads).errors.push((SystemTime::now(), None, "cannot connect".to_owned()));
            sleep(AGAIN).await;
            continue;
        };
        let mut server = None;
        while !stop.load(Ordering::Relaxed) {
            match ask(&client).await {
                Ok(answered) => {
                    server = Some(answered);
                    locked(&reads).answers.push((SystemTime::now(), answered));
                }
                Err(error) => {
                    locked(&reads).errors.push((SystemTime::now(), server, error));
                    break;
                }
            }
            sleep(PAUSE).await;
        }
    }
}

async fn ask(client: &Client) -> Result<IpAddr, String> {
    match timeout(LIMIT, client.query_one("select inet_server_addr()", &[])).await {
        Ok(row) => row.and_then(|row| row.try_get(0)).map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connect(port: u16) -> Option<Client> {
    let (user, password) = postgres::APPLICATION;
    let endpoint = Scene::endpoint(port);
    let mut config = tokio_postgres::Config::new();
    config.host(endpoint.ip().to_string()).port(endpoint.port()).user(user).password(password).dbname(user);
    let (client, connection) = timeout(LIMIT, config.connect(NoTls)).await.ok()?.ok()?;
    tokio::spawn(connection);
    Some(client)
}
