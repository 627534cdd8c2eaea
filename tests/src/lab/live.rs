//! Long-lived connections: bytes at a steady pace on each, one a second by default, and every byte must come back.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use super::{Namespace, visit::connect, wait::eventually};

/// From one byte to the next, unless another pace is asked for.
const SECOND: Duration = Duration::from_secs(1);
/// Longer than TCP's first retransmissions: only a lost flow breaks a connection, not a lost packet.
const ECHO_LIMIT: Duration = Duration::from_secs(10);

/// Connections with a task each. Dropping them closes them.
pub struct Live {
    stop: watch::Sender<bool>,
    meters: Arc<[Meter]>,
    thread: JoinHandle<Result<Report>>,
}

/// What a connection has done so far.
#[derive(Debug, Default)]
struct Meter {
    sent: AtomicU64,
    echoed: AtomicU64,
    /// The longest time without an echo, in milliseconds.
    silence_ms: AtomicU64,
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
        Self::open_at(SECOND, namespace, (from, to), count)
    }

    /// The same with a byte in each `interval`.
    pub fn open_at(
        interval: Duration,
        namespace: &Namespace,
        (from, to): (&[IpAddr], SocketAddr),
        count: usize,
    ) -> Result<Self> {
        ensure!(!from.is_empty(), "no address to connect from");
        let from = from.to_vec();
        let (stop, stopped) = watch::channel(false);
        let (opened, all_open) = mpsc::sync_channel(1);
        let meters: Arc<[Meter]> = (0..count).map(|_| Meter::default()).collect();
        let counters = Arc::clone(&meters);
        let thread = namespace.spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let streams = open(&from, to, count).await?;
                opened.send(()).context("the receiver of the connections is gone")?;
                Ok(live(streams, interval, &counters, &stopped).await)
            })
        });
        if all_open.recv().is_err() {
            let ended = thread.join().map_err(|_| anyhow!("the connections' thread panicked"))?;
            return Err(ended.err().unwrap_or_else(|| anyhow!("the connections ended before they began")));
        }
        Ok(Self { stop, meters, thread })
    }

    /// Waits until `each` more bytes have come back on every connection.
    pub fn wait_for_bytes(&self, each: u64) -> Result<()> {
        self.wait_for_bytes_on(self.meters.len(), each)
    }

    /// Waits until `each` more bytes have come back on at least `connections` of them. A surplus on one does not make up
    /// for another.
    pub fn wait_for_bytes_on(&self, connections: usize, each: u64) -> Result<()> {
        let goals: Vec<_> = self.meters.iter().map(|meter| meter.echoed.load(Relaxed) + each).collect();
        let mut alive = 0;
        let what = format!("{each} more bytes are echoed on each of {connections} connections");
        let waited = eventually(ECHO_LIMIT, &what, || {
            alive = self.reached(&goals);
            Ok(alive >= connections)
        });
        waited.map(drop).with_context(|| format!("only on {alive}"))
    }

    /// How many connections echo a byte that they send from now on, within this time.
    pub fn count_alive(&self, within: Duration) -> Result<usize> {
        let goals: Vec<_> = self.meters.iter().map(|meter| meter.sent.load(Relaxed) + 1).collect();
        let start = Instant::now();
        eventually(within + SECOND, "the connections are counted", || {
            Ok(self.reached(&goals) == goals.len() || start.elapsed() >= within)
        })?;
        Ok(self.reached(&goals))
    }

    /// The longest time in which a connection echoed nothing, since the last call.
    pub fn longest_silence(&self) -> Duration {
        let longest = self.meters.iter().map(|meter| meter.silence_ms.swap(0, Relaxed)).max();
        Duration::from_millis(longest.unwrap_or_default())
    }

    /// The connections that have echoed this number of bytes.
    fn reached(&self, goals: &[u64]) -> usize {
        let pairs = self.meters.iter().zip(goals);
        pairs.filter(|(meter, goal)| meter.echoed.load(Relaxed) >= **goal).count()
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

async fn live(
    streams: Vec<TcpStream>,
    interval: Duration,
    meters: &Arc<[Meter]>,
    stopped: &watch::Receiver<bool>,
) -> Report {
    let connections = streams.len();
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    let spread = interval / u32::try_from(connections.max(1)).unwrap_or(u32::MAX);
    for (number, stream) in (0..).zip(streams) {
        let mut ticks = time::interval_at(start + spread * number, interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let (meters, stopped) = (Arc::clone(meters), stopped.clone());
        tasks.spawn(async move { exchange_bytes(stream, ticks, &meters[number as usize], stopped).await });
    }
    let mut broken = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => broken.push(format!("{error:#}")),
            Err(error) => broken.push(error.to_string()),
        }
    }
    let echoed = meters.iter().map(|meter| meter.echoed.load(Relaxed)).sum();
    Report { connections, echoed, broken }
}

/// Sends a byte at each tick until stopped, or until none comes back. The next one does not wait for the last one's echo.
async fn exchange_bytes(
    mut stream: TcpStream,
    mut ticks: time::Interval,
    meter: &Meter,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let (mut reader, mut writer) = stream.split();
    let (mut sent, mut echoed, mut is_stopped) = (0_u64, 0_u64, false);
    let mut last_echo = Instant::now();
    let mut bytes = [0; 256];
    while !is_stopped || echoed < sent {
        tokio::select! {
            _ = ticks.tick(), if !is_stopped => {
                writer.write_all(&[sent as u8]).await.context("send a byte")?;
                sent += 1;
                meter.sent.store(sent, Relaxed);
            }
            count = reader.read(&mut bytes) => {
                let count = count.context("read an echo")?;
                ensure!(count > 0, "the server ended the connection");
                for byte in &bytes[..count] {
                    ensure!(*byte == echoed as u8 && echoed < sent, "byte {echoed} of {sent} is {byte}");
                    echoed += 1;
                }
                meter.silence_ms.fetch_max(last_echo.elapsed().as_millis() as u64, Relaxed);
                last_echo = Instant::now();
                meter.echoed.store(echoed, Relaxed);
            }
            () = time::sleep_until(last_echo + ECHO_LIMIT), if echoed < sent => bail!("no echo within {ECHO_LIMIT:?}"),
            () = stop(&mut stopped), if !is_stopped => is_stopped = true,
        }
    }
    Ok(())
}

/// Ends when the connections are to stop. An error means that the sender is gone: stop, too.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stop| *stop).await);
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
