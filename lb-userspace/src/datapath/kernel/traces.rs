//! What the program says of single packets, if the log is to show it.
//!
//! The filter of the log decides when the program is loaded. Without traces the verifier removes them from it.

use std::{fmt, io};

use anyhow::Context;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use lb_common::limits::{IDLE_RING_BYTES, TRACE_RING_BYTES};
use log::{Level, Log, log_enabled};
use tokio::io::{Interest, unix::AsyncFd};
use tokio_util::sync::CancellationToken;

/// What traces are logged as.
const TARGET: &str = "lb_ebpf";
const RING: &str = "AYA_LOGS";

/// The level of `AYA_LOG_LEVEL`, in the numbers of both log crates: the most detailed that the log shows, or none.
#[derive(Clone, Copy, Debug)]
pub struct Asked(u8);

impl Asked {
    /// Asks the log.
    pub fn of_log() -> Self {
        let levels = [Level::Trace, Level::Debug];
        let shown = levels.into_iter().find(|level| log_enabled!(target: TARGET, *level));
        Self(shown.map_or(0, |level| level as u8))
    }

    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// What it costs to be told.
    pub fn warning(self) -> Option<String> {
        self.any().then(|| {
            format!(
                "the XDP program traces new flows and refused packets, because the log shows {TARGET}: they are slower, \
                 until xlb is started without"
            )
        })
    }

    pub const fn ring_bytes(self) -> u32 {
        if self.any() { TRACE_RING_BYTES } else { IDLE_RING_BYTES }
    }

    /// Has the verifier keep what is asked for.
    pub fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global(aya_log::LEVEL, &self.0, true).map_max_entries(RING, self.ring_bytes());
    }

    /// The traces of a program that was loaded.
    pub fn take(self, ebpf: &mut Ebpf) -> anyhow::Result<Option<Traces>> {
        if !self.any() {
            return Ok(None);
        }
        let logger = EbpfLogger::init(ebpf).with_context(|| format!("use the map {RING}"))?;
        Ok(Some(Traces(logger)))
    }
}

/// The ring on which it says them.
pub struct Traces(EbpfLogger<&'static dyn Log>);

/// Logs the program's traces until shutdown.
pub async fn traces(traces: Traces, shutdown: CancellationToken) {
    tokio::select! {
        Err(error) = log_all(traces) => log::error!("read traces of the XDP program: {error}; tracing ends"),
        () = shutdown.cancelled() => {}
    }
}

async fn log_all(traces: Traces) -> io::Result<()> {
    // SAFETY: the logger owns its ring's file descriptor, which stays the same and open as long as the logger lives.
    let mut logger = unsafe { AsyncFd::register_with_interest(traces.0, Interest::READABLE) }?;
    loop {
        let mut readable = logger.readable_mut().await?;
        // It ends: the program writes no more than so many lines a second.
        readable.get_inner_mut().flush();
        readable.clear_ready();
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}
