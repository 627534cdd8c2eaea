//! Log lines that others can cause: at most one each few seconds, with the number of those that were left out.

use std::time::Duration;

use tokio::time::Instant;

/// See the [module](self).
#[derive(Debug)]
pub struct Occasionally {
    interval: Duration,
    last: Option<Instant>,
    left_out: u64,
}

impl Occasionally {
    pub const fn each(interval: Duration) -> Self {
        Self { interval, last: None, left_out: 0 }
    }

    /// It has happened. The number of times since the last line, if it is time for another one.
    pub fn count(&mut self) -> Option<u64> {
        self.left_out += 1;
        if self.last.is_some_and(|last| last.elapsed() < self.interval) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_left_out_is_counted() {
        let mut line = Occasionally::each(Duration::from_secs(1));

        assert_eq!([line.count(), line.count(), line.count()], [Some(1), None, None]);
        advance(Duration::from_secs(1)).await;
        assert_eq!([line.count(), line.count()], [Some(3), None]);
    }
}
