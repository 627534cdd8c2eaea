//! Counters of a name never decrease, whatever happens to the service or backend.

use lb_common::counters::{BackendCounters, ServiceCounters, Tally};

use super::*;
use crate::metrics::render;

#[test]
fn sums_of_a_service_do_not_decrease_when_a_backend_is_removed() {
    let mut world = counted();

    world.ask(remove(name("web/web-1"))).unwrap();

    assert_eq!(world.new_flows(), 30);
    let text = metrics(&mut world);
    assert!(text.contains("xlb_service_received_packets_total{service=\"web\"} 157"), "{text}");
}

#[test]
fn no_series_decreases_over_removals_renames_reloads_and_kills() {
    let mut world = counted();
    let mut highest = BTreeMap::new();
    let mut watch = |world: &mut World, what: &str| {
        for (series, value) in totals(&metrics(world)) {
            let before = highest.insert(series.clone(), value).unwrap_or_default();
            assert!(value >= before, "{series} decreases from {before} to {value}: {what}");
        }
    };
    let file = world.spec().clone();
    let mut without = file.clone();
    without.services[0].backends.remove(0);
    let mut renamed = file.clone();
    renamed.services[0].backends[0].name = "web-9".into();
    let mut swapped = file.clone();
    let [first, second, _] = &mut swapped.services[0].backends[..] else { panic!("expected three") };
    std::mem::swap(&mut first.name, &mut second.name);
    let mut shop = file.clone();
    shop.services[0].name = "shop".into();
    let mut crossed = file.clone();
    crossed.services.push(dns().into());
    let mut swapped_services = crossed.clone();
    let [web, dns] = &mut swapped_services.services[..] else { panic!("expected two") };
    std::mem::swap(&mut web.name, &mut dns.name);
    let none = spec(Vec::new());

    let ways = [without, renamed, swapped, shop, crossed, swapped_services, none];
    for (number, way) in ways.iter().flat_map(|way| [way, &file]).enumerate() {
        for is_killed in [false, true] {
            world.host().file = Ok(way.clone());
            if is_killed {
                world.restart();
            } else {
                world.ask(Request::Reload).unwrap();
            }
            watch(&mut world, &format!("step {number}, killed: {is_killed}"));
            count(&mut world, 1);
            watch(&mut world, &format!("after step {number}"));
        }
    }
}

#[test]
fn counts_of_health_checks_continue_when_a_name_is_used_again() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.probed("web/web-1", Health::Down);
    world.probed("web/web-1", Health::Up);
    let file = world.host().file.clone().unwrap();
    let mut without = file.clone();
    without.services[0].backends.remove(0);
    let mut expected = health_series(&mut world);
    assert!(expected.iter().any(|line| line.ends_with("result=\"success\"} 2")), "{expected:?}");
    assert!(
        expected.iter().any(|line| line.contains("state_changes") && line.ends_with(" 2")),
        "{expected:?}"
    );

    let body = || NewBackend { address: socket("10.0.0.11:8080"), weight: 100, backup: false, max_flows: 0 };
    world.ask(remove(name("web/web-1"))).unwrap();
    assert_eq!(health_series(&mut world), [""; 0]);
    world.ask(add(name("web/web-1"), body())).unwrap();
    assert_eq!(health_series(&mut world), expected, "by commands");

    for number in 0..2 {
        world.host().file = Ok(without.clone());
        world.ask(Request::Reload).unwrap();
        world.host().file = Ok(if number == 0 { spec(vec![dns()]) } else { file.clone() });
        world.ask(Request::Reload).unwrap();
        world.host().file = Ok(file.clone());
        world.ask(Request::Reload).unwrap();
        assert_eq!(health_series(&mut world), expected, "by reload {number}");
    }

    world.probed("web/web-1", Health::Down);
    expected = health_series(&mut world);
    world.ask(remove(name("web/web-1"))).unwrap();
    world.maps().fail_after = Some(0);
    world.ask(add(name("web/web-1"), body())).unwrap_err();
    world.wait(2_000);
    world.ask(add(name("web/web-1"), body())).unwrap();
    assert_eq!(health_series(&mut world), expected, "after an addition that was undone");
}

/// Each of the three backends had 10 flows and 50 packets, and 7 packets for the service were not forwarded.
fn counted() -> World {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    count(&mut world, 10);
    world
}

/// Every number counts this many flows.
fn count(world: &mut World, flows: u64) {
    let maps = world.maps();
    for number in maps.maps.backend_names.keys() {
        let counters = maps.counters.backends.entry(*number).or_default();
        let BackendCounters { forwarded, new_flows, .. } = counters;
        *new_flows += flows;
        (forwarded.packets, forwarded.bytes) = (forwarded.packets + 5 * flows, forwarded.bytes + 50 * flows);
    }
    for number in maps.maps.service_names.keys() {
        let ServiceCounters { refused, .. } = maps.counters.services.entry(*number).or_default();
        *refused = Tally { packets: refused.packets + 7, bytes: refused.bytes + 70 };
    }
}

fn metrics(world: &mut World) -> String {
    render(&world.ask(Request::Metrics).unwrap()).unwrap()
}

/// Counts of web-1.
fn health_series(world: &mut World) -> Vec<String> {
    let text = metrics(world);
    let lines =
        text.lines().filter(|line| line.contains("xlb_health_check") || line.contains("state_changes"));
    lines.filter(|line| line.contains("web-1")).map(str::to_owned).collect()
}

/// Counters of the data plane. Those of health checks start with each daemon.
fn totals(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter(|line| line.contains("_total{") && !line.contains("checks"));
    let lines = lines.filter(|line| !line.contains("state_changes"));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}
