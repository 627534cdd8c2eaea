//! Long-lived connections: a byte a second on each, and every byte must come back.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use super::{Namespace, visit::connect, wait::eventually};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than TCP's first retransmissions: only a lost flow breaks a connection, not a lost packet.
const ECHO_LIMIT: Duration = Duration::from_secs(10);

/// Connections with a task each. Dropping them closes them.
pub struct Live {
    stop: watch::Sender<bool>,
    /// The number of echoed bytes, by connection.
    echoed: Arc<[AtomicU64]>,
    thread: JoinHandle<Result<Report>>,
}

/// The outcome.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many were opened, the broken ones among them.
    pub connections: usize,
    /// Bytes that were sent and came back.
    pub echoed: u64,
    /// Why each broken connection broke.
    pub broken: Vec<String>,
}

impl Live {
    /// Opens `count` connections to an echo server, from each of `from` in turn; returns when all have echoed a byte.
    pub fn open(namespace: &Namespace, from: &[IpAddr], to: SocketAddr, count: usize) -> Result<Self> {
        ensure!(!from.is_empty(), "no address to connect from");
        let from = from.to_vec();
        let (stop, stopped) = watch::channel(false);
        let (opened, all_open) = mpsc::sync_channel(1);
        let echoed: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let counters = Arc::clone(&echoed);
        let thread = namespace.spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let streams = open(&from, to, count).await?;
                opened.send(()).context("the receiver of the connections is gone")?;
                Ok(live(streams, &counters, &stopped).await)
            })
        });
        if all_open.recv().is_err() {
            let ended = thread.join().map_err(|_| anyhow!("the connections' thread panicked"))?;
            return Err(ended.err().unwrap_or_else(|| anyhow!("the connections ended before they began")));
        }
        Ok(Self { stop, echoed, thread })
    }

    /// Waits until `each` more bytes have come back on every connection.
    pub fn wait_for_bytes(&self, each: u64) -> Result<()> {
        self.wait_for_bytes_on(self.echoed.len(), each)
    }

    /// Waits until `each` more bytes have come back on at least `connections` of them. A surplus on one does not make up
    /// for another.
    pub fn wait_for_bytes_on(&self, connections: usize, each: u64) -> Result<()> {
        let before = self.seen();
        let mut alive = 0;
        let what = format!("{each} more bytes are echoed on each of {connections} connections");
        let waited = eventually(ECHO_LIMIT, &what, || {
            alive = self.seen().iter().zip(&before).filter(|(now, before)| *now - *before >= each).count();
            Ok(alive >= connections)
        });
        waited.map(drop).with_context(|| format!("only on {alive}"))
    }

    fn seen(&self) -> Vec<u64> {
        self.echoed.iter().map(|bytes| bytes.load(Ordering::Relaxed)).collect()
    }

    /// Lets the bytes on their way come back, and closes all.
    pub fn finish(self) -> Result<Report> {
        // If the receiver is gone, its thread ended with an error, which `join` returns.
        let _ = self.stop.send(true);
        self.thread.join().map_err(|_| anyhow!("the connections' thread panicked"))?
    }

    /// The same, and fails if a connection broke.
    pub fn finish_unbroken(self) -> Result<Report> {
        let report = self.finish()?;
        ensure!(report.broken.is_empty(), "{report}");
        Ok(report)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, echoed, broken } = self;
        write!(f, "{connections} connections, {echoed} bytes echoed, {} broken", broken.len())?;
        match broken.first() {
            Some(first) => write!(f, " (first: {first})"),
            None => Ok(()),
        }
    }
}

async fn open(from: &[IpAddr], to: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    /// Opened gradually: the subject is existing connections, not bursts.
    const AT_ONCE: usize = 64;
    let mut streams = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    let mut sources = from.iter().cycle().take(count);
    loop {
        while opening.len() < AT_ONCE
            && let Some(&source) = sources.next()
        {
            opening.spawn(async move {
                let mut stream = connect(SocketAddr::new(source, 0), to).await?;
                echo(&mut stream, 0).await?;
                Ok::<_, anyhow::Error>(stream)
            });
        }
        match opening.join_next().await {
            Some(opened) => streams.push(opened?.with_context(|| format!("open a connection to {to}"))?),
            None => return Ok(streams),
        }
    }
}

async fn live(streams: Vec<TcpStream>, echoed: &Arc<[AtomicU64]>, stopped: &watch::Receiver<bool>) -> Report {
    let connections = streams.len();
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    let spread = SECOND / u32::try_from(connections.max(1)).unwrap_or(u32::MAX);
    for (number, stream) in (0..).zip(streams) {
        let first = start + spread * number;
        let (echoed, stopped) = (Arc::clone(echoed), stopped.clone());
        tasks.spawn(async move { exchange_bytes(stream, first, &echoed[number as usize], stopped).await });
    }
    let mut broken = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => broken.push(format!("{error:#}")),
            Err(error) => broken.push(error.to_string()),
        }
    }
    let echoed = echoed.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum();
    Report { connections, echoed, broken }
}

/// Sends a byte a second until stopped, or until one does not come back.
async fn exchange_bytes(
    mut stream: TcpStream,
    first: Instant,
    echoed: &AtomicU64,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let mut ticks = time::interval_at(first, SECOND);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    for byte in (0..=u8::MAX).cycle() {
        tokio::select! {
            _ = ticks.tick() => {}
            // An error means that the sender is gone: stop, too.
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        echo(&mut stream, byte).await?;
        echoed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn echo(stream: &mut TcpStream, byte: u8) -> Result<()> {
    let exchange = async {
        stream.write_all(&[byte]).await.context("send a byte")?;
        stream.read_u8().await.context("read its echo")
    };
    let answer = time::timeout(ECHO_LIMIT, exchange)
        .await
        .with_context(|| format!("no echo within {ECHO_LIMIT:?}"))??;
    ensure!(answer == byte, "sent {byte}, read {answer}");
    Ok(())
}
