//! An application: writers that append numbered rows and connect again after an error, and readers.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    runtime,
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};

use super::{Engine, endpoint};
use crate::lab::Namespace;

/// Between two rows of a writer, and two questions of a reader.
const PAUSE: Duration = Duration::from_millis(150);
/// After an error, before the next attempt: all writers together stay below the 1,000 answers a second to refused packets.
const AGAIN: Duration = Duration::from_millis(250);
/// What takes longer has failed.
const LIMIT: Duration = Duration::from_secs(2);

/// A row that a writer knows to be committed.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The writer, and the number of the row.
    pub key: (u32, u32),
    /// The name of the server that took it.
    pub server: String,
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
    pub answers: Vec<(SystemTime, String)>,
    /// Statements that failed, with the server that was asked, and attempts to connect that failed.
    pub errors: Vec<(SystemTime, Option<String>, String)>,
}

/// Running clients. Dropping it stops them.
pub struct Clients {
    stop: Arc<AtomicBool>,
    writes: Arc<Mutex<Writes>>,
    reads: Arc<Mutex<Reads>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Clients {
    pub(super) fn start<E: Engine>(namespace: &Namespace) -> Self {
        let (stop, writes, reads) = <(Arc<AtomicBool>, Arc<Mutex<Writes>>, Arc<Mutex<Reads>>)>::default();
        let shared = (Arc::clone(&stop), Arc::clone(&writes), Arc::clone(&reads));
        let thread = namespace.spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, async {
                let (stop, writes, reads) = shared;
                let mut tasks = JoinSet::new();
                for number in 0..E::WRITERS {
                    tasks.spawn_local(write::<E>(number, Arc::clone(&stop), Arc::clone(&writes)));
                }
                for _ in 0..E::READERS {
                    tasks.spawn_local(read::<E>(Arc::clone(&stop), Arc::clone(&reads)));
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
    pub fn acknowledged_by(&self, server: &str) -> usize {
        locked(&self.writes).acks.iter().filter(|ack| ack.server == server).count()
    }

    /// The number of reads so far that this server answered.
    pub fn answered_by(&self, server: &str) -> usize {
        locked(&self.reads).answers.iter().filter(|(_, name)| name == server).count()
    }

    /// Stops the clients.
    pub fn stop(mut self) -> Result<(Writes, Reads)> {
        self.end()?;
        Ok((locked(&self.writes).clone(), locked(&self.reads).clone()))
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        match thread.join() {
            Ok(ended) => ended.context("run the clients"),
            Err(_) => bail!("the clients panicked"),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // An error cannot be returned, and something else has failed.
        let _ = self.end();
    }
}

async fn write<E: Engine>(number: u32, stop: Arc<AtomicBool>, writes: Arc<Mutex<Writes>>) {
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut session = within(E::connect(endpoint::<E>(false))).await;
        while let Ok(session) = &mut session
            && !stop.load(Ordering::Relaxed)
        {
            let key = (number, next);
            next += 1;
            let Ok(server) = within(E::append(session, key)).await else { break };
            locked(&writes).acks.push(Ack { key, server });
            sleep(PAUSE).await;
        }
        locked(&writes).errors += 1;
        sleep(AGAIN).await;
    }
}

async fn read<E: Engine>(stop: Arc<AtomicBool>, reads: Arc<Mutex<Reads>>) {
    while !stop.load(Ordering::Relaxed) {
        let mut server = None;
        if let Err(error) = read_until::<E>(&stop, &reads, &mut server).await {
            locked(&reads).errors.push((SystemTime::now(), server, format!("{error:#}")));
        }
        sleep(AGAIN).await;
    }
}

/// Reads over one connection.
async fn read_until<E: Engine>(
    stop: &AtomicBool,
    reads: &Mutex<Reads>,
    server: &mut Option<String>,
) -> Result<()> {
    let mut session = within(E::connect(endpoint::<E>(true))).await.context("connect")?;
    while !stop.load(Ordering::Relaxed) {
        let answered = within(E::ask(&mut session)).await?;
        locked(reads).answers.push((SystemTime::now(), answered.clone()));
        *server = Some(answered);
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(LIMIT, work).await.context("no answer")?
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
