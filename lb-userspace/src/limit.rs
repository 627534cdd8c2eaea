//! A limit of how many of a kind run at once, and a warning when it is reached.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

/// Each that runs takes its share of these, so that the limit may change while some run. Shares are whole numbers: with
/// this many, exactly N have room for each limit N up to 1024.
const SHARES: u32 = 1 << 20;
/// Maximum of what a limit may be.
const MOST: u32 = 1024;
/// A limit that was not reached for so long is reported again when it is.
const QUIET: Duration = Duration::from_secs(600);

/// See the [module](self).
#[derive(Debug)]
pub struct Limit {
    /// What is limited.
    name: &'static str,
    most: AtomicU32,
    free: Semaphore,
    last_reached: Mutex<Option<Instant>>,
}

/// Something may run as long as it has this.
#[derive(Debug)]
pub struct Turn<'l> {
    _shares: Option<SemaphorePermit<'l>>,
}

impl Limit {
    /// `name`: what is limited, for the log.
    pub const fn new(name: &'static str, most: u32) -> Self {
        let free = Semaphore::const_new(SHARES as usize);
        Self { name, most: AtomicU32::new(most), free, last_reached: Mutex::new(None) }
    }

    /// How many may run at once.
    pub fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed).clamp(1, MOST)
    }

    /// Changes the limit. Those that run keep their turns.
    pub fn set_most(&self, most: u32) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Waits until fewer than the limit run.
    pub async fn take(&self) -> Turn<'_> {
        let most = self.most();
        let shares = share(most);
        let taken = match self.free.try_acquire_many(shares) {
            Ok(taken) => Some(taken),
            Err(_) => {
                if self.is_news(Instant::now()) {
                    log::warn!(max = most; "too many {} at once: some start late; raise the intervals", self.name);
                }
                // Only a closed semaphore is an error, and this one is never closed.
                self.free.acquire_many(shares).await.ok()
            }
        };
        Turn { _shares: taken }
    }

    /// The limit is reached. Was that not so for some time?
    fn is_news(&self, now: Instant) -> bool {
        // A panic while this was locked left no half of it.
        let mut last = self.last_reached.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.replace(now).is_none_or(|before| now.duration_since(before) >= QUIET)
    }
}

const fn share(most: u32) -> u32 {
    SHARES / most
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[test]
    fn every_limit_is_exact() {
        for most in 1..=MOST {
            assert_eq!(SHARES / share(most), most);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_run_at_once_than_allowed() {
        let limit = Arc::new(Limit::new("things", 3));
        let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (limit, now, most) = (limit.clone(), now.clone(), most.clone());
                tokio::spawn(async move {
                    let _turn = limit.take().await;
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sleep(Duration::from_secs(1)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();

        for task in tasks {
            task.await.unwrap();
        }

        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_limit_holds_for_the_next_turn() {
        let limit = Limit::new("things", 1);
        let soon = Duration::from_secs(1);

        let first = limit.take().await;
        assert!(timeout(soon, limit.take()).await.is_err());
        drop(first);
        limit.set_most(2);
        let _first = limit.take().await;
        let _second = timeout(soon, limit.take()).await.unwrap();
        assert!(timeout(soon, limit.take()).await.is_err());
    }

    #[test]
    fn a_limit_that_is_reached_again_and_again_is_reported_once() {
        let limit = Limit::new("things", 1);
        let start = Instant::now();

        let reported =
            [0, 1, 599, 1_198, 1_798, 1_799].map(|s| limit.is_news(start + Duration::from_secs(s)));

        assert_eq!(reported, [true, false, false, false, true, false]);
    }
}
