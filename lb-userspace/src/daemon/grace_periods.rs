//! Waits for grace periods, which the controller must not do: each takes some milliseconds.

use std::time::Duration;

use log::warn;
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::event::Event;

/// The time from a failure to the next attempt.
const RETRY: Duration = Duration::from_secs(1);

/// Until shutdown, waits for each grace period whose number is published, and reports its end. `wait` returns when one has
/// passed.
pub async fn run(
    mut begun: watch::Receiver<u64>,
    wait: impl Fn() -> anyhow::Result<()> + Copy + Send + 'static,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let work = async {
        while begun.changed().await.is_ok() {
            let round = *begun.borrow_and_update();
            while let Err(error) = spawn_blocking(wait).await.map_err(anyhow::Error::from).flatten() {
                warn!(
                    error:% = format_args!("{error:#}");
                    "former map entries cannot be reused; retrying every second"
                );
                sleep(RETRY).await;
            }
            if events.send(Event::GracePeriodEnded(round)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use anyhow::ensure;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_each_grace_period_is_reported_after_a_failure_too() {
        static WAITS: AtomicU32 = AtomicU32::new(0);
        let wait = || {
            ensure!(WAITS.fetch_add(1, Ordering::Relaxed) > 0, "no memory");
            Ok(())
        };
        let (begin, begun) = watch::channel(0);
        let (events, mut inbox) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(begun, wait, events, stop.clone()));

        for round in [1, 2] {
            begin.send_replace(round);
            let event = inbox.recv().await;
            assert!(matches!(event, Some(Event::GracePeriodEnded(ended)) if ended == round), "{event:?}");
        }

        assert_eq!(WAITS.load(Ordering::Relaxed), 3);
        stop.cancel();
        task.await.unwrap();
    }
}
