//! How many programs run at once, over all backends.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// A program takes its share of these, so that the limit may change with a reload while programs run. Shares are whole
/// numbers: with this many, exactly N programs have room for each limit N up to 64.
const SHARES: u32 = 1 << 20;

static FREE: Semaphore = Semaphore::const_new(SHARES as usize);
/// The limit was reached, and this was logged.
static IS_REACHED: AtomicBool = AtomicBool::new(false);

/// A program runs as long as it has this.
pub struct Turn {
    _shares: Option<SemaphorePermit<'static>>,
}

/// Waits until fewer than `most` programs run.
pub async fn take(most: u32) -> Turn {
    let shares = SHARES / most.max(1);
    let taken = match FREE.try_acquire_many(shares) {
        Ok(taken) => {
            IS_REACHED.store(false, Ordering::Relaxed);
            Some(taken)
        }
        Err(_) => {
            if !IS_REACHED.swap(true, Ordering::Relaxed) {
                log::warn!(max = most; "too many programs of health checks at once: some start late");
            }
            // Only a closed semaphore is an error, and this one is never closed.
            FREE.acquire_many(shares).await.ok()
        }
    };
    Turn { _shares: taken }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_exact() {
        for most in 1..=64 {
            let share = SHARES / most;

            assert_eq!(SHARES / share, most);
        }
    }
}
