//! Another configuration file.

use super::*;

#[test]
fn an_invalid_file_changes_nothing_and_is_reported() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let before = world.maps().maps.clone();
    let mut problem = Problem::new(ProblemKind::InvalidConfiguration, "xlb.toml has 1 mistake");
    problem.mistakes.push("xlb.toml:12:9: `0` is not a port".into());
    world.host().file = Err(problem.clone());

    let answer = world.ask(Request::Reload);

    assert_eq!(answer.unwrap_err(), problem);
    assert_eq!(world.maps().maps, before);
    let status = world.status();
    assert_eq!(status.last_reload_error.as_deref(), Some("xlb.toml has 1 mistake"));
    assert!(!status.last_reload_successful);
}

#[test]
fn a_reload_lists_changes_and_what_needs_a_restart() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let kept = world.id("web/web-2");
    let mut file = world.spec().clone();
    file.limits.flows += 1;
    file.metrics = Some(socket("127.0.0.1:9292"));
    file.services[0].backends[0].address = socket("10.0.0.12:9090");
    file.services[0].backends.pop();
    file.services.push(dns().into());
    world.host().file = Ok(file);

    let reloaded = world.ask(Request::Reload).unwrap();

    assert_eq!(
        reloaded.changes,
        ["web/web-3: removed", "web/web-1: address 10.0.0.11:8080 -> 10.0.0.12:9090", "dns: added"]
    );
    assert_eq!(
        reloaded.warnings,
        [
            "[limits] differ from the pinned flow tables, which keep their sizes: 262144 IPv4 flows, 65536 IPv6 flows, \
             65536 half-open; to change them, run `xlb detach` (which ends all flows) and start xlb again",
            "[metrics] has changed: restart xlb to apply it (traffic keeps flowing)"
        ]
    );
    assert_eq!(world.serving(), ["web-2"], "a backend at another address must be probed first");
    assert_eq!(world.id("web/web-2"), kept);
}

#[test]
fn adding_a_health_check_keeps_backends_up() {
    let unchecked = Service { health: None, ..web(Protocol::Tcp) };
    let mut world = World::unprobed(vec![unchecked]);
    world.host().file = Ok(spec(vec![web(Protocol::Tcp)]));

    world.ask(Request::Reload).unwrap();

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3"]);
    assert!(world.targets.borrow().iter().all(|target| target.known == Some(Health::Up)));
}

#[test]
fn the_overlay_survives_a_reload() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.set("web/web-1", AdminState::Drain);

    world.ask(Request::Reload).unwrap();

    assert_eq!(world.serving(), ["web-2", "web-3"]);
    assert_eq!(world.status().overlay, ["web/web-1: drain"]);
}
