//! Targets are added, changed and removed during the watch, with real sockets on loopback.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpListener,
    sync::watch::{Sender, channel},
    task::JoinHandle,
    time::timeout,
};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    event::{Health, Probed},
    probe::{Probe, ProbeOutcome, Tcp, fixture::configured},
    spec::{BackendName, HealthCheck},
};

const AMPLE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_unchanged_target_keeps_what_its_dampener_has_seen() {
    let mut world = World::start(vec![]);
    world.set(vec![target("a", refusing().await)]);
    assert_eq!(world.result_of("a").await.change, Some(Health::Down), "the first result decides");

    // `a` is sent again with a known health, and `b` is added: `a` keeps its task, so nothing is decided a second
    // time.
    let adopted = Target { known: Some(Health::Up), ..world.targets()[0].clone() };
    world.set(vec![adopted, target("b", refusing().await)]);

    assert_eq!(world.result_of("b").await.change, Some(Health::Down));
    for _ in 0..10 {
        assert_eq!(world.result_of("a").await.change, None);
    }
}

#[tokio::test]
async fn a_changed_target_starts_afresh_and_a_removed_one_is_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = World::start(vec![target("a", refusing().await), target("b", refusing().await)]);
    assert_eq!(world.result_of("a").await.change, Some(Health::Down));

    world.set(vec![target("a", listener.local_addr().unwrap())]);

    let risen = loop {
        let probed = world.result_of("a").await;
        if probed.result.outcome == ProbeOutcome::Success {
            break probed;
        }
    };
    assert_eq!(risen.change, Some(Health::Up), "the first result of the new address decides");
    for _ in 0..20 {
        assert_eq!(world.next().await.backend.backend, "a");
    }
}

#[tokio::test]
async fn the_first_probe_of_a_new_or_changed_target_waits_for_no_interval() {
    let rare = async |name| hourly(target(name, refusing().await));
    let mut world = World::start(vec![rare("a").await]);
    assert_eq!(world.result_of("a").await.change, Some(Health::Down), "at the start");

    world.set(vec![world.targets()[0].clone(), rare("b").await]);
    assert_eq!(world.result_of("b").await.change, Some(Health::Down), "after an addition");

    let mut changed = world.targets();
    changed[0].check.fall += 1;
    world.set(changed);
    assert_eq!(world.result_of("a").await.change, Some(Health::Down), "after its check was changed");
}

#[tokio::test]
async fn many_new_targets_are_all_probed_within_seconds() {
    // Each on an address of its own, so that none shares the probe of another one.
    let address = |number: u16| SocketAddr::from(([127, 1, (number >> 8) as u8, number as u8], 9));
    let target = |number| hourly(target(&format!("b{number}"), address(number)));
    let targets: Vec<_> = (0..300).map(target).collect();
    assert_eq!(by_watch(targets.clone()).len(), 300);
    let mut world = World::start(targets);

    for _ in 0..300 {
        world.next().await;
    }
}

#[tokio::test]
async fn backends_of_two_services_on_one_server_are_probed_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = |service: &str| {
        let target = hourly(target("a", address));
        Target { backend: BackendName::new(service, "a"), ..target }
    };
    let mut world = World::start(vec![target("db"), target("db-read")]);

    let mut services = [world.next().await.backend.service, world.next().await.backend.service];

    services.sort();
    assert_eq!(services, ["db", "db-read"]);
    assert!(timeout(AMPLE, listener.accept()).await.unwrap().is_ok());
    let second = timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(second.is_err(), "one connection for both");
}

#[tokio::test]
async fn a_watch_that_ends_because_its_targets_are_gone_does_not_end_the_others() {
    let (events, _inbox) = mpsc::channel(8);
    let mut watches = Watches::new(events);
    watches.adjust(vec![target("a", refusing().await)]);

    // A task that is running while it is aborted ends by itself: it finds that its targets are gone.
    watches.by_place.clear();

    assert!(timeout(Duration::from_millis(500), watches.ended()).await.is_err());
}

#[tokio::test]
async fn a_program_is_asked_about_each_backend_of_a_server() {
    let probe = configured("type = 'exec'\ncommand = ['/bin/sh', '-c', 'echo $XLB_SERVICE']");
    let target = |service: &str| {
        let mut target = hourly(target("a", ([127, 0, 0, 1], 80).into()));
        (target.backend, target.check.probe) = (BackendName::new(service, "a"), probe.clone());
        target
    };
    let mut world = World::start(vec![target("db"), target("db-read")]);

    for _ in 0..2 {
        let probed = world.next().await;

        assert_eq!(probed.result.detail, format!("exit code 0: {}", probed.backend.service));
    }
}

#[tokio::test]
async fn shutdown_ends_it_and_all_its_tasks() {
    let mut world = World::start(vec![target("a", refusing().await)]);
    world.next().await;

    world.stop.cancel();

    timeout(AMPLE, &mut world.running).await.unwrap().unwrap();
    while timeout(AMPLE, world.events.recv()).await.unwrap().is_some() {}
}

#[tokio::test]
async fn it_ends_when_the_receiver_is_gone() {
    let mut world = World::start(vec![target("a", refusing().await)]);

    world.events.close();

    timeout(AMPLE, world.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn probing_once_needs_no_watch() {
    let result = probe_once(&target("a", refusing().await)).await;

    assert_eq!((result.outcome, result.detail.as_str()), (ProbeOutcome::Failure, "connection refused"));
}

struct World {
    targets: Sender<Vec<Target>>,
    events: mpsc::Receiver<Event>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl World {
    fn start(targets: Vec<Target>) -> Self {
        let (targets, watched) = channel(targets);
        let (sender, events) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(watched, sender, stop.clone()));
        Self { targets, events, stop, running }
    }

    fn targets(&self) -> Vec<Target> {
        self.targets.borrow().clone()
    }

    fn set(&self, targets: Vec<Target>) {
        self.targets.send_replace(targets);
    }

    async fn next(&mut self) -> Probed {
        match timeout(AMPLE, self.events.recv()).await.unwrap() {
            Some(Event::Probed(probed)) => probed,
            other => panic!("{other:?}"),
        }
    }

    async fn result_of(&mut self, backend: &str) -> Probed {
        loop {
            let probed = self.next().await;
            if probed.backend.backend == backend {
                return probed;
            }
        }
    }
}

fn target(backend: &str, address: SocketAddr) -> Target {
    let interval = Duration::from_millis(5);
    let check =
        HealthCheck { probe: Probe::Tcp(Tcp), interval, timeout: AMPLE, rise: 2, fall: 3, port: None };
    Target { backend: BackendName::new("web", backend), address, source: None, check, known: None }
}

/// Its second probe is beyond the end of any test, whatever the phase of its name.
fn hourly(target: Target) -> Target {
    let check = HealthCheck { interval: Duration::from_secs(3600), ..target.check };
    Target { check, ..target }
}

/// An address without a listener.
async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
