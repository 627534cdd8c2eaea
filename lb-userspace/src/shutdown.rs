//! How the daemon tells its tasks to stop.
//!
//! Whoever holds the [`Trigger`] stops every task that waits on a [`Shutdown`]: by firing it, or by going away,
//! so that no task outlives its owner by accident.

use tokio::sync::watch;

/// A pair of the two ends.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

/// Stops the tasks.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Wakes everybody who waits, and everybody who will.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

/// What a task waits on beside its work. Clones hear the same trigger.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Returns when the trigger was fired or dropped. Safe to cancel and to call again.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        // An error says that the trigger is gone: that is a shutdown as well.
        let _gone = receiver.wait_for(|fired| *fired).await.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn waits_until_the_trigger_is_fired_and_never_again() {
        let (trigger, shutdown) = channel();

        assert!(timeout(SOON, shutdown.wait()).await.is_err());

        trigger.fire();

        assert!(timeout(SOON, shutdown.wait()).await.is_ok());
        assert!(timeout(SOON, shutdown.clone().wait()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_trigger_is_a_shutdown() {
        let (trigger, shutdown) = channel();

        drop(trigger);

        assert!(timeout(SOON, shutdown.wait()).await.is_ok());
    }
}
