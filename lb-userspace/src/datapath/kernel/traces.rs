//! Traces of single packets by the XDP program, if the log shows them.
//!
//! The log filter decides this when the program is loaded. Without traces, the verifier removes them.

use std::{fmt, io};

use anyhow::Context;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use lb_common::limits::{IDLE_RING_BYTES, TRACE_RING_BYTES};
use log::{Level, Log, log_enabled};
use tokio::io::{Interest, unix::AsyncFd};
use tokio_util::sync::CancellationToken;

/// The log target of traces.
const TARGET: &str = "lb_ebpf";
const RING: &str = "AYA_LOGS";

/// The value of `AYA_LOG_LEVEL`, in the numbers of both log crates: the most detailed level that the log shows, or
/// none.
#[derive(Clone, Copy, Debug)]
pub struct TraceLevel(u8);

impl TraceLevel {
    /// The level of the log filter.
    pub fn of_log() -> Self {
        let levels = [Level::Trace, Level::Debug];
        let shown = levels.into_iter().find(|level| log_enabled!(target: TARGET, *level));
        Self(shown.map_or(0, |level| level as u8))
    }

    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// A warning about the cost of traces.
    pub fn warning(self) -> Option<String> {
        self.any().then(|| {
            format!(
                "the XDP program logs single packets, because the log filter includes {TARGET}: this slows down the \
                 packets that it logs; restart xlb without this filter"
            )
        })
    }

    pub const fn ring_bytes(self) -> u32 {
        if self.any() { TRACE_RING_BYTES } else { IDLE_RING_BYTES }
    }

    /// Sets the level in the program, so that the verifier keeps its traces.
    pub fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global(aya_log::LEVEL, &self.0, true).map_max_entries(RING, self.ring_bytes());
    }

    /// The traces of a loaded program.
    pub fn take(self, ebpf: &mut Ebpf) -> anyhow::Result<Option<Traces>> {
        if !self.any() {
            return Ok(None);
        }
        let logger = EbpfLogger::init(ebpf).with_context(|| format!("cannot use the map {RING}"))?;
        Ok(Some(Traces(logger)))
    }
}

/// The ring buffer with the traces.
pub struct Traces(EbpfLogger<&'static dyn Log>);

/// Logs the program's traces until shutdown.
pub async fn log_traces(traces: Traces, shutdown: CancellationToken) {
    tokio::select! {
        Err(error) = log_all(traces) => log::error!("cannot read traces from the XDP program: {error}; tracing stops"),
        () = shutdown.cancelled() => {}
    }
}

async fn log_all(traces: Traces) -> io::Result<()> {
    // SAFETY: the logger owns its ring's file descriptor, which stays open and unchanged as long as the logger
    // lives.
    let mut logger = unsafe { AsyncFd::register_with_interest(traces.0, Interest::READABLE) }?;
    loop {
        let mut readable = logger.readable_mut().await?;
        // This terminates: the program limits its lines per second.
        readable.get_inner_mut().flush();
        readable.clear_ready();
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}
