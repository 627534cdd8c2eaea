//! Waits for other processes: polls in short steps, with a limit.

use std::{
    panic,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// The default limit of a wait.
pub const SOON: Duration = Duration::from_secs(5);
/// The interval between polls.
const STEP: Duration = Duration::from_millis(10);

/// The result of a thread. Panics if the thread panicked.
pub fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Polls until `is` returns true, and returns how long that took.
pub fn eventually(within: Duration, what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if is()? {
            return Ok(start.elapsed());
        }
        if start.elapsed() > within {
            bail!("within {within:?}: {what}");
        }
        thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_again_until_it_is_so() {
        let mut looks = 0;

        let waited = eventually(Duration::from_secs(5), "the third look", || {
            looks += 1;
            Ok(looks == 3)
        });

        assert!(waited.is_ok());
        assert_eq!(looks, 3);
    }

    #[test]
    fn says_what_it_waited_for_in_vain() {
        let error = eventually(Duration::ZERO, "the sea is dry", || Ok(false)).unwrap_err();

        assert_eq!(error.to_string(), "within 0ns: the sea is dry");
    }
}
