//! Waits for interfaces that appear after the daemon starts, as they do at boot.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::datapath::OpenError;

/// Interval of checks. Not everything that preflight checks (LRO, sysctls) sends an event when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Checks the host until it passes, for at most `limit`. Problems that waiting cannot solve are returned at once.
/// `report` gets the problems whenever they change.
pub async fn until_fit<T>(
    limit: Duration,
    mut look: impl FnMut() -> Result<T, OpenError>,
    report: impl Fn(&str),
) -> Result<T, OpenError> {
    let deadline = Instant::now() + limit;
    let mut reported = String::new();
    loop {
        let causes = match look() {
            Err(OpenError::Unfit(causes))
                if causes.iter().all(|cause| cause.is_transient) && Instant::now() < deadline =>
            {
                causes
            }
            outcome => return outcome,
        };
        let missing = causes.iter().map(|cause| cause.what.as_str()).collect::<Vec<_>>().join("; ");
        if missing != reported {
            report(&missing);
            reported = missing;
        }
        sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::datapath::Cause;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn goes_on_as_soon_as_the_interface_is_there_and_reports_each_change_once() {
        let reports = RefCell::new(Vec::new());
        let mut looks = 0;
        let start = Instant::now();

        let outcome = until_fit(
            LIMIT,
            || {
                looks += 1;
                match looks {
                    1..=10 => unfit(&[missing()]),
                    11..=20 => unfit(&[Cause::transient("eth0 does not forward IPv4", "sysctl")]),
                    _ => Ok(()),
                }
            },
            |missing| reports.borrow_mut().push(missing.to_owned()),
        )
        .await;

        assert!(outcome.is_ok() && start.elapsed() == LOOK_AGAIN * 20);
        assert_eq!(reports.take(), ["there is no interface eth0", "eth0 does not forward IPv4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_limit_with_the_causes() {
        let start = Instant::now();

        let outcome = until_fit(LIMIT, || unfit::<()>(&[missing()]), |_| {}).await;

        assert!(matches!(outcome, Err(OpenError::Unfit(causes)) if causes == [missing()]));
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_for_what_never_passes_or_without_a_limit() {
        let start = Instant::now();
        let old = Cause::new("the kernel is Linux 5.10", "boot Linux 6.1 or newer");

        let both = until_fit(LIMIT, || unfit::<()>(&[missing(), old.clone()]), |_| {}).await;
        let no_limit = until_fit(Duration::ZERO, || unfit::<()>(&[missing()]), |_| {}).await;

        assert!(both.is_err() && no_limit.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    fn missing() -> Cause {
        Cause::transient("there is no interface eth0", "name one of eth1 in the configuration")
    }

    fn unfit<T>(causes: &[Cause]) -> Result<T, OpenError> {
        Err(OpenError::Unfit(causes.to_vec()))
    }
}
