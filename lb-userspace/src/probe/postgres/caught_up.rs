//! When a replica was last seen with everything that it had received.
//!
//! The age of the last replayed transaction includes the idle time before the next one: the first write after an hour
//! would make a replica an hour old. No column tells when the first WAL that it has not replayed was written, but that was
//! after the last answer without any such WAL.

use std::time::Duration;

use tokio::time::Instant;

use super::super::Mark;

/// See the [module](self). It outlives a connection, and says nothing of another server with the same address.
#[derive(Clone, Debug, Default)]
pub struct CaughtUp(Option<(Mark, Instant)>);

impl CaughtUp {
    /// It has everything, up to this mark.
    pub fn seen(&mut self, mark: &Mark, now: Instant) {
        self.0 = Some((mark.clone(), now));
    }

    /// How long ago the server with this mark had everything, at most. `None`: unknown, as it is of another history or has
    /// less than that.
    pub fn ago(&self, mark: &Mark, now: Instant) -> Option<Duration> {
        let (then, at) = self.0.as_ref()?;
        let continues = (mark.cluster(), mark.term()) == (then.cluster(), then.term());
        (continues && mark.position() >= then.position()).then(|| now.saturating_duration_since(*at))
    }
}
