//! How the operator's actions are logged: words and `field=value`, never the debug output of a structure.

use std::{cell::RefCell, sync::Once};

use log::{
    LevelFilter, Log, Metadata, Record,
    kv::{Error, Key, Value, VisitSource},
};

use super::*;

#[test]
fn actions_are_logged_in_words_and_fields() {
    capture();
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let new = NewBackend { address: "10.0.0.14:80".parse().unwrap(), weight: 7, backup: false, max_flows: 0 };
    let all = BackendPatch { admin_state: Some(AdminState::Drain), weight: Some(50), backup: Some(true) };
    let ready = BackendPatch { admin_state: Some(AdminState::Ready), ..BackendPatch::default() };
    let mut file = world.host().file.clone().unwrap();
    file.services[0].backends[2].weight = 9;
    CAPTURED.take();

    world.ask(add(name("web/web-4"), new)).unwrap();
    world.ask(change(name("web/web-2"), all)).unwrap();
    world.ask(change(name("web/web-2"), ready)).unwrap();
    world.ask(remove(name("web/web-4"))).unwrap();
    let query =
        FlowQuery { service: Some("web".into()), client: Some("192.0.2.7".into()), ..FlowQuery::default() };
    world.remove_flows(query).unwrap();
    world.remove_flows(FlowQuery { all: true, ..FlowQuery::default() }).unwrap();
    world.host().file = Ok(file);
    world.ask(Request::Reload).unwrap();
    world.maps().fail_after = Some(1);
    world.probed("web/web-1", Health::Down);

    let captured = CAPTURED.take();
    let expected = [
        "backend added backend=web/web-4 address=10.0.0.14:80",
        "backend changed backend=web/web-2 change=drain, weight 50, backup true",
        "backend changed backend=web/web-2 change=ready",
        "backend removed backend=web/web-4",
        "flows removed selection=service web, client 192.0.2.7/32 flows=0",
        "flows removed selection=all flows=0",
        "reloaded changes=1",
        "web/web-3: weight 100 -> 9",
    ];
    assert_eq!(captured[..expected.len()], expected);
    for line in captured {
        for debug in ["{", "Some(", "None", "[", "\""] {
            assert!(!line.contains(debug), "{line}");
        }
    }
}

#[test]
fn a_service_that_becomes_ready_or_not_ready_is_logged_once_its_backends_were_checked() {
    capture();
    let unchecked = Service { health: None, name: "unchecked".into(), ..dns() };
    let mut world = World::unprobed(vec![web(Protocol::Tcp), unchecked]);
    let ready = || -> Vec<String> {
        CAPTURED.take().into_iter().filter(|line| line.starts_with("service is")).collect()
    };
    let all = ["web/web-1", "web/web-2", "web/web-3"];

    let unchecked = "service is ready service=unchecked available=2 quorum=1";
    assert_eq!(ready(), [unchecked], "not before its next hops were reported");
    all.iter().take(2).for_each(|backend| world.probed(backend, Health::Down));
    assert_eq!(ready(), [""; 0], "web-3 may be up");
    world.probed(all[2], Health::Down);
    assert_eq!(ready(), ["service is not ready service=web available=0 quorum=1"]);
    all.iter().for_each(|backend| world.probed(backend, Health::Up));
    assert_eq!(ready(), ["service is ready service=web available=1 quorum=1"]);
    world.restart();
    world.wait(RESYNC.as_millis() as u64);
    assert_eq!(ready(), [""; 0], "it was ready before");
    all.iter().for_each(|backend| world.set(backend, AdminState::Drain));
    assert_eq!(ready(), ["service is not ready service=web available=0 quorum=1"]);
}

#[test]
fn ejections_by_the_program_are_logged_within_a_second() {
    capture();
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let [one, two] = ["web/web-1", "web/web-2"].map(|name| world.id(name).unwrap());
    world.wait(1000);
    CAPTURED.take();

    world.maps().ejected.extend([one, two]);
    world.wait(1000);
    world.maps().ejected.remove(&one);
    world.wait(1000);
    world.probed("web/web-2", Health::Up);
    world.wait(1000);

    let expected = [
        "backend is ejected: it refused or did not answer its last new flows backend=web/web-1",
        "backend is ejected: it refused or did not answer its last new flows backend=web/web-2",
        "backend is no longer ejected backend=web/web-1",
        "backend is no longer ejected: its health check succeeded backend=web/web-2",
    ];
    assert_eq!(CAPTURED.take(), expected);
}

#[test]
fn a_warning_that_a_change_of_one_backend_causes_is_logged_when_it_has_lasted_two_seconds() {
    capture();
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let to = "10.0.0.11".parse().unwrap();
    let mut seen = hops(world.spec());
    seen.insert(path(to), HopState::NoRoute);
    world.absorb(Event::Hops(seen));
    // Twice: after the first time, a grace period ends.
    world.wait(RESYNC.as_millis() as u64);
    world.wait(RESYNC.as_millis() as u64);
    CAPTURED.take();

    // At an address that is known to be out of reach, so that netlink reports nothing new.
    let new = NewBackend { address: "10.0.0.11:81".parse().unwrap(), weight: 7, backup: false, max_flows: 0 };
    world.ask(add(name("web/web-4"), new)).unwrap();
    world.wait(1_000);
    let is_logged =
        |lines: Vec<String>| lines.iter().any(|it| it.starts_with("backend web/web-4: there is no route"));
    assert!(!is_logged(CAPTURED.take()), "it may be over in a moment");
    world.wait(2_000);

    assert!(is_logged(CAPTURED.take()));
}

#[test]
fn a_warning_of_a_reload_is_logged_once() {
    capture();
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let mut file = world.host().file.clone().unwrap();
    file.limits.flows *= 2;
    world.host().file = Ok(file);
    CAPTURED.take();

    world.ask(Request::Reload).unwrap();
    world.wait(RESYNC.as_millis() as u64);
    world.wait(RESYNC.as_millis() as u64);

    let warnings: Vec<_> = CAPTURED.take().into_iter().filter(|line| line.contains("[limits]")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn a_request_beyond_the_limit_is_refused_in_words() {
    capture();
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let patch = BackendPatch { weight: Some(50), ..BackendPatch::default() };
    // The last one is one too many. The others wait for an answer.
    let replies: Vec<_> = (0..=WAITING_MAX)
        .map(|_| {
            let (reply, answer) = Reply::channel();
            let request = change(name("web/web-2"), patch.clone());
            world.controller.queue(request(reply), Instant::now());
            answer
        })
        .collect();

    let expected = format!(
        "request refused: {WAITING_MAX} requests are already waiting: try again later request=change backend web/web-2: \
         weight 50"
    );
    assert!(CAPTURED.take().contains(&expected));
    drop(replies);
}

thread_local! {
    /// Each test runs in a thread of its own.
    static CAPTURED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the lines that this test logs from now on.
pub(super) fn capture() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&Capture).unwrap();
        log::set_max_level(LevelFilter::Info);
    });
}

/// The lines since then.
pub(super) fn captured() -> Vec<String> {
    CAPTURED.take()
}

struct Capture;

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut line = Line(record.args().to_string());
        record.key_values().visit(&mut line).unwrap();
        CAPTURED.with_borrow_mut(|lines| lines.push(line.0));
    }

    fn flush(&self) {}
}

struct Line(String);

impl<'kvs> VisitSource<'kvs> for Line {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0 += &format!(" {key}={value}");
        Ok(())
    }
}
