//! What a client gets that connects while there is no primary.

use std::{
    io::ErrorKind,
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Engine, SETTLED, Scene, endpoint};
use crate::lab::wait::eventually;

const REFUSED: ErrorKind = ErrorKind::ConnectionRefused;
/// A client is refused within this time.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Attempts. More than half of them must be that fast, as others may run while the CPUs are busy.
const ATTEMPTS: usize = 5;
/// After this time, a client gives up.
const PATIENCE: Duration = Duration::from_secs(2);

impl<E: Engine> Scene<E> {
    /// Waits until there is no primary.
    pub fn wait_for_no_primary(&self) -> Result<()> {
        eventually(SETTLED, "there is no primary", || Ok(self.roles("db")?["primary"].is_null())).map(drop)
    }

    /// Every connection for writes is refused, and at once. Returns the median of the times.
    pub fn ensure_writes_are_refused_at_once(&self) -> Result<Duration> {
        // The data plane may follow `xlb role list` 100 ms later.
        eventually(SETTLED, "a connection is refused", || Ok(self.connect()?.0 == Some(REFUSED)))?;
        let ends = (0..ATTEMPTS).map(|_| self.connect()).collect::<Result<Vec<_>>>()?;
        ensure!(ends.iter().all(|(end, _)| *end == Some(REFUSED)), "{ends:?}");
        let mut times: Vec<_> = ends.into_iter().map(|(_, time)| time).collect();
        times.sort();
        let median = *times.get(ATTEMPTS / 2).context("there was no attempt")?;
        ensure!(median < AT_ONCE, "refused after {times:?}");
        Ok(median)
    }

    /// How an attempt to connect to the endpoint for writes ends (`None`: well), and after what time.
    fn connect(&self) -> Result<(Option<ErrorKind>, Duration)> {
        self.lab.client.inside(|| {
            let start = Instant::now();
            let stream = TcpStream::connect_timeout(&endpoint::<E>(false), PATIENCE);
            Ok((stream.err().map(|error| error.kind()), start.elapsed()))
        })
    }
}
