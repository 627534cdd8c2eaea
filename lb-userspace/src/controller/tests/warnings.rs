//! Warnings are shown while they apply.

use lb_common::flow::State as FlowState;

use super::*;
use crate::{
    metrics::render,
    probe::{Facts, ProbeOutcome},
};

#[test]
fn a_backend_beyond_the_interfaces_is_reported_and_left_out() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let mut seen = hops(world.spec());
    seen.insert(
        path("10.0.0.12".parse().unwrap()),
        HopState::Outside { interface: "eth7".into(), is_ethernet: true },
    );

    world.absorb(Event::Hops(seen));

    assert_eq!(world.serving(), ["web-1", "web-3"]);
    let warnings = world.status().warnings;
    assert!(warnings[0].starts_with("backend web/web-2: its route leads through eth7"), "{warnings:?}");
}

#[test]
fn an_interface_that_cannot_be_attached_is_never_suggested() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let mut seen = hops(world.spec());
    seen.insert(path("10.0.0.11".parse().unwrap()), HopState::Local);
    seen.insert(
        path("10.0.0.12".parse().unwrap()),
        HopState::Outside { interface: "lo".into(), is_ethernet: false },
    );

    world.absorb(Event::Hops(seen));

    assert_eq!(world.serving(), ["web-3"]);
    assert_eq!(
        world.status().warnings,
        [
            "backend web/web-1: 10.0.0.11 is an address of this host: a backend on the load balancer itself \
             is not supported; move it to another host",
            "backend web/web-2: its route leads through lo, which is not an Ethernet interface and is not \
             supported: change the route \
             to 10.0.0.12",
        ]
    );
}

#[test]
fn a_backend_on_an_address_of_this_host_is_not_added() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.host().addresses.insert("10.0.0.77".parse().unwrap());
    world.absorb(Event::LinksChanged);
    let body =
        NewBackend { address: "10.0.0.77:80".parse().unwrap(), weight: 1, backup: false, max_flows: 0 };

    let refused = world.ask(add(name("web/web-4"), body)).unwrap_err();

    assert_eq!(refused.kind, ProblemKind::Invalid);
    assert_eq!(
        refused.detail,
        "`10.0.0.77` cannot be a backend: it is an address of this host, and a backend on the load balancer \
         itself is not supported"
    );
}

#[test]
fn pins_that_cannot_be_restored_are_in_the_status_until_they_can() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.host().pins_failure = Some("cannot pin /sys/fs/bpf/xlb/v1/FLOWS4: no space left");

    world.absorb(Event::PinsRemoved);

    let warnings = world.status().warnings;
    let expected = "cannot restore interfaces and pins: cannot pin /sys/fs/bpf/xlb/v1/FLOWS4: no space left";
    assert_eq!(warnings, [expected]);

    world.host().pins_failure = None;
    world.absorb(Event::PinsRemoved);

    assert_eq!(world.status().warnings, [""; 0]);
}

#[test]
fn limits_of_services_and_backends_other_than_the_pinned_ones_are_a_warning() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let mut other = world.host().file.clone().unwrap();
    other.limits.backends *= 2;
    world.host().file = Ok(other);

    world.ask(Request::Reload).unwrap();

    let warnings = world.status().warnings;
    assert_eq!(
        warnings,
        ["[limits] differ from the pinned maps, which keep their sizes: 1024 services, 16384 backends, \
             1048576 slots; to change them, run `xlb detach` (which ends all flows) and start xlb again"]
    );
}

#[test]
fn limits_other_than_the_pinned_ones_are_a_warning_until_the_file_has_them_again() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let as_pinned = world.host().file.clone();
    let mut other = as_pinned.clone().unwrap();
    other.limits.half_open_flows /= 2;
    world.host().file = Ok(other);
    world.restart();

    let warnings = world.status().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("[limits] differ from the pinned flow tables"), "{warnings:?}");

    world.host().file = as_pinned;
    world.ask(Request::Reload).unwrap();

    assert_eq!(world.status().warnings, [""; 0]);
}

#[test]
fn ports_that_the_host_uses_too_are_a_warning_if_full_nat_needs_them() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let as_pinned = std::mem::replace(&mut world.host().local_ports, (1024, 60_999));
    world.absorb(Event::LinksChanged);

    let warnings = world.status().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("net.ipv4.ip_local_port_range has changed (1024 to 60999)"),
        "{warnings:?}"
    );

    world.host().local_ports = as_pinned;
    world.absorb(Event::LinksChanged);

    assert_eq!(world.status().warnings, [""; 0]);
}

#[test]
fn warnings_of_the_start_stay() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.controller.start_warnings = vec!["eth0 is slow".into()];

    world.ask(Request::Reload).unwrap();

    assert_eq!(world.status().warnings, ["eth0 is slow"]);
}

#[test]
fn a_nearly_full_flow_table_is_reported_with_a_remedy() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let ids: Vec<BackendId> =
        ["web/web-1", "web/web-2", "web/web-3"].iter().filter_map(|it| world.id(it)).collect();
    // 209,715 of 262,144 are 80 %.
    for id in ids.iter().cycle().take(6) {
        world.add_flows(*id, 34_900);
    }
    world.wait(2_000);
    let is_of_table = |it: &String| it.starts_with("the IPv4 flow table is more than 80 % full");
    assert!(!world.status().warnings.iter().any(is_of_table));

    world.add_flows(ids[0], 400);
    world.wait(2_000);

    let warnings = world.status().warnings;
    let warning = warnings.iter().find(|it| is_of_table(it)).unwrap();
    assert!(warning.contains("raise flows in [limits]"), "{warning}");
}

#[test]
fn nearly_exhausted_source_ports_are_reported_with_a_remedy() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let id = world.id("web/web-2").unwrap();
    // 29,024 of 36,280 are 80 %.
    world.add_flows(id, 29_024);
    world.wait(2_000);
    assert_eq!(world.status().warnings, [""; 0]);

    world.add_flows(id, 1);
    world.wait(2_000);

    let warnings = world.status().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("backend web/web-2: more than 80 % of the 36280 source ports"),
        "{warnings:?}"
    );
    assert!(warnings[0].contains("add an address to `source` of service web"), "{warnings:?}");
}

#[test]
fn services_with_the_same_sources_share_the_ports_towards_a_backend() {
    let mut other = web(Protocol::Tcp);
    other.name = "shop".into();
    other.listen = vec![socket("192.0.2.10:81")];
    let apart = Service {
        name: "apart".into(),
        listen: vec![socket("192.0.2.10:82")],
        sources: vec!["10.0.0.2".parse().unwrap()],
        ..web(Protocol::Tcp)
    };
    let mut world = World::all_up(vec![web(Protocol::Tcp), other, apart]);
    let [web, shop, apart] = ["web/web-2", "shop/web-2", "apart/web-2"].map(|it| world.id(it).unwrap());
    world.add_flows(apart, 20_000);
    world.add_flows(web, 20_000);
    world.add_flows(shop, 9_024);
    world.wait(2_000);
    assert_eq!(world.status().warnings, [""; 0], "80 % of 36,280 are 29,024");

    world.add_flows(shop, 1);
    world.wait(2_000);

    let warnings = world.status().warnings;
    let about: Vec<_> =
        warnings.iter().filter_map(|warning| warning.split_once(':')).map(|it| it.0).collect();
    assert_eq!(about, ["backend web/web-2", "backend shop/web-2"], "{warnings:?}");
}

#[test]
fn reset_flows_raise_no_warning_because_others_take_their_records_and_ports() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let id = world.id("web/web-2").unwrap();
    for _ in 0..8 {
        world.add_flows(id, 30_000);
    }
    let reset = FlowState(FlowState::ESTABLISHED.0 | FlowState::RESET | FlowState::SHORT_CLIENT);
    world.maps().records.iter_mut().flatten().for_each(|flow| flow.state = reset);

    world.wait(2_000);

    assert_eq!(world.status().warnings, [""; 0]);
    let flows = world.ask(Request::FlowCount).unwrap();
    assert_eq!((flows.closing, flows.established), (240_000, 0), "they are shown");
}

#[test]
fn a_certificate_is_known_until_a_probe_succeeds_without_one() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let said = |world: &mut World| {
        let warnings = world.status().warnings;
        let metrics = render(&world.ask(Request::Metrics).unwrap()).unwrap();
        let series = metrics.lines().find(|line| line.starts_with("xlb_backend_certificate_expiry"));
        (warnings, series.map(str::to_owned))
    };
    // Probes of the tests are made at the beginning of time.
    let two_days = SystemTime::UNIX_EPOCH + Duration::from_hours(48);
    let warning = "backend web/web-2: its certificate ends in 2 days: renew it on the server";
    let series = "xlb_backend_certificate_expiry_timestamp_seconds{service=\"web\",backend=\"web-2\"} 172800";
    let known = (vec![warning.to_owned()], Some(series.to_owned()));

    let mut probed = probed(&world.controller.state, "web/web-2", Health::Up);
    probed.result.facts = Facts { certificate_ends: Some(two_days), ..Facts::default() };
    world.absorb(Event::Probed(probed.clone()));
    assert_eq!(said(&mut world), known);

    probed.result.facts = Facts::default();
    for outcome in [ProbeOutcome::Failure, ProbeOutcome::Timeout, ProbeOutcome::Undecided] {
        (probed.change, probed.result.outcome) = (None, outcome);
        world.absorb(Event::Probed(probed.clone()));
        assert_eq!(said(&mut world), known, "a probe that fails sees no certificate");
    }

    probed.result.outcome = ProbeOutcome::Success;
    world.absorb(Event::Probed(probed));
    assert_eq!(said(&mut world), (Vec::new(), None));
}
