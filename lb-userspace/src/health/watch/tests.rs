//! A backend that dies is found down within `fall * interval` + 100 ms if it refuses connections, and `timeout` later
//! if it is silent. Time is virtual, so that every moment of death can be tested.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::SystemTime,
};

use tokio::{
    sync::watch::channel,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    probe::{Answer, Probe, ProbeOutcome, Tcp},
    spec::{BackendName, HealthCheck},
};

/// The margin for everything except probes.
const GRACE: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_is_down_within_fall_intervals_of_its_death() {
    for (interval_ms, fall, died_ms) in moments_of_death() {
        let backend = Fake { dies_at: Duration::from_millis(died_ms), silent: false };
        let check = check(interval_ms, interval_ms, fall);

        let down = backend.down_after(&check).await;

        let promised = check.interval * fall + GRACE;
        assert!(
            down <= promised,
            "{down:?} > {promised:?}: interval {interval_ms}, fall {fall}, died {died_ms}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_falls_silent_is_down_one_timeout_later_than_that() {
    for (interval_ms, fall, died_ms) in moments_of_death() {
        for timeout_ms in [interval_ms, interval_ms - 1, interval_ms / 2, 10] {
            let backend = Fake { dies_at: Duration::from_millis(died_ms), silent: true };
            let check = check(interval_ms, timeout_ms, fall);

            let down = backend.down_after(&check).await;

            let promised = check.interval * fall + check.timeout + GRACE;
            assert!(
                down <= promised,
                "{down:?} > {promised:?}: interval {interval_ms}, timeout {timeout_ms}, fall {fall}, died {died_ms}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_backend_ever_has_two_probes_at_once() {
    let under_way = Arc::new(AtomicU32::new(0));
    let counted = under_way.clone();
    let probe = async move |_: &Target| {
        assert_eq!(counted.fetch_add(1, Ordering::SeqCst), 0);
        sleep(Duration::from_millis(3_700)).await;
        counted.fetch_sub(1, Ordering::SeqCst);
        finding(Err(Fault::Silent))
    };
    let (sender, mut events) = mpsc::channel(8);
    let task = tokio::spawn(watch_alone(target(check(1_000, 3_700, 3)), None, probe, sender));

    for _ in 0..10 {
        events.recv().await.unwrap();
    }

    task.abort();
}

#[tokio::test(start_paused = true)]
async fn the_first_result_decides_only_if_the_health_is_unknown() {
    for (known, first) in [(None, Some(Health::Down)), (Some(Health::Up), None), (Some(Health::Down), None)] {
        let (sender, mut events) = mpsc::channel(8);
        let target = Target { known, ..target(check(1_000, 1_000, 3)) };
        let probe = async |_: &Target| finding(Err(Fault::Failed("connection refused".to_owned())));
        let task = tokio::spawn(watch_alone(target, None, probe, sender));

        let Some(Event::Probed(probed)) = events.recv().await else { panic!("no result") };

        assert_eq!(probed.change, first, "known {known:?}");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_decides_nothing_is_shown_and_changes_nothing() {
    let (sender, mut events) = mpsc::channel(8);
    let probe = async |_: &Target| finding(Err(Fault::Undecided("too many open files".to_owned())));
    let task = tokio::spawn(watch_alone(target(check(1_000, 1_000, 3)), None, probe, sender));

    for _ in 0..10 {
        let Some(Event::Probed(probed)) = events.recv().await else { panic!("no result") };

        assert_eq!((probed.change, probed.result.outcome), (None, ProbeOutcome::Undecided));
        assert_eq!(probed.result.detail, "too many open files");
    }

    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_probe_waits_for_its_turn_unless_it_limits_itself() {
    let limit = Arc::new(Limit::new("probes", 1));
    let turn = limit.take().await;
    let first_result = async |limit| {
        let (sender, mut events) = mpsc::channel(8);
        let probe = async |_: &Target| finding(Ok("connected".to_owned()));
        let task = tokio::spawn(watch_alone(target(check(1_000, 1_000, 3)), limit, probe, sender));
        let result = timeout(Duration::from_secs(60), events.recv()).await;
        task.abort();
        result.is_ok()
    };

    assert!(!first_result(Some(limit.clone())).await);
    assert!(first_result(None).await);
    drop(turn);
    assert!(first_result(Some(limit.clone())).await);
}

#[tokio::test(start_paused = true)]
async fn targets_of_one_server_share_its_probes_and_each_has_its_own_thresholds() {
    let probes = Arc::new(AtomicU32::new(0));
    let counted = probes.clone();
    let probe = async move |_: &Target| {
        counted.fetch_add(1, Ordering::SeqCst);
        finding(Err(Fault::Failed("connection refused".to_owned())))
    };
    let named = |name: &str, fall| Target {
        backend: BackendName::new(name, "web-1"),
        known: Some(Health::Up),
        ..target(check(1_000, 1_000, fall))
    };
    let (quick, slow) = (named("quick", 1), named("slow", 3));
    let (targets, sharers) = channel(vec![quick.clone()]);
    let (sender, mut events) = mpsc::channel(8);
    let watching = watch(quick.clone(), sharers, Duration::ZERO, None, probe, sender);
    let task = tokio::spawn(watching);
    let mut next = async || match events.recv().await {
        Some(Event::Probed(probed)) => (probed.backend.service, probed.change),
        other => panic!("{other:?}"),
    };
    assert_eq!(next().await, ("quick".to_owned(), Some(Health::Down)));

    let joined = Instant::now();
    targets.send_replace(vec![quick, slow]);

    assert_eq!(
        (next().await, joined.elapsed()),
        (("slow".to_owned(), None), Duration::ZERO),
        "the last result"
    );
    for change in [None, Some(Health::Down), None] {
        assert_eq!(next().await, ("quick".to_owned(), None));
        assert_eq!(next().await, ("slow".to_owned(), change));
    }
    assert_eq!(probes.load(Ordering::SeqCst), 4);
    task.abort();
}

/// A watch of one target.
async fn watch_alone<P>(target: Target, limit: Option<Arc<Limit>>, probe: P, events: mpsc::Sender<Event>)
where
    P: AsyncFnMut(&Target) -> Finding,
{
    let (_held, sharers) = channel(vec![target.clone()]);
    watch(target, sharers, Duration::ZERO, limit, probe, events).await;
}

/// A backend that answers until it dies.
#[derive(Clone, Copy)]
struct Fake {
    dies_at: Duration,
    silent: bool,
}

impl Fake {
    /// Watches it, and returns how long after its death it was found down.
    async fn down_after(self, check: &HealthCheck) -> Duration {
        let started = Instant::now();
        let (sender, mut events) = mpsc::channel(8);
        let target = Target { known: Some(Health::Up), ..target(check.clone()) };
        let probe = async move |target: &Target| {
            if started.elapsed() < self.dies_at {
                sleep(Duration::from_millis(1)).await;
                finding(Ok("connected".to_owned()))
            } else if self.silent {
                sleep(target.check.timeout).await;
                finding(Err(Fault::Silent))
            } else {
                finding(Err(Fault::Failed("connection refused".to_owned())))
            }
        };
        let task = tokio::spawn(watch_alone(target, None, probe, sender));
        loop {
            let Some(Event::Probed(probed)) = events.recv().await else { panic!("the watch ended") };
            if let Some(change) = probed.change {
                assert_eq!(change, Health::Down);
                task.abort();
                return started.elapsed() - self.dies_at;
            }
        }
    }
}

/// (interval, fall, moment): covers more than an interval in steps, so that some moments are right after a probe's
/// start.
fn moments_of_death() -> impl Iterator<Item = (u64, u32, u64)> {
    [(1_000, 3), (1_000, 1), (200, 5), (100, 30)]
        .into_iter()
        .flat_map(|(interval, fall)| (0..120).map(move |n| (interval, fall, 5_000 + n * interval / 100)))
}

fn check(interval_ms: u64, timeout_ms: u64, fall: u32) -> HealthCheck {
    HealthCheck {
        probe: Probe::Tcp(Tcp),
        interval: Duration::from_millis(interval_ms),
        timeout: Duration::from_millis(timeout_ms),
        rise: 2,
        fall,
        port: None,
    }
}

fn target(check: HealthCheck) -> Target {
    let address = "127.0.0.1:1".parse().unwrap();
    Target { backend: BackendName::new("web", "web-1"), address, source: None, check, known: None }
}

fn finding(answer: Result<String, Fault>) -> Finding {
    Finding {
        answer: answer.map(Answer::from),
        duration: Duration::ZERO,
        at: SystemTime::UNIX_EPOCH,
        timeout: Duration::ZERO,
    }
}
