//! What agents on the servers say: weights and administrative states, beside those of the operator.

use super::*;
use crate::{
    probe::{AgentReport, Probe, WeightPercent},
    spec::{Availability, OnDown, Scheduler},
};

const NOTHING: AgentReport = AgentReport { state: None, weight: None };
const READY: AgentReport = state(AdminState::Ready);
const DRAIN: AgentReport = state(AdminState::Drain);
const MAINT: AgentReport = state(AdminState::Maint);

const fn state(state: AdminState) -> AgentReport {
    AgentReport { state: Some(state), weight: None }
}

const fn percent(percent: u32) -> AgentReport {
    AgentReport { state: None, weight: Some(WeightPercent(percent)) }
}

fn with_agents(service: Service) -> Service {
    let mut health = service.health.clone().unwrap();
    health.probe = agent();
    Service { health: Some(health), ..service }
}

fn agent() -> Probe {
    crate::probe::fixture::configured("type = 'agent'")
}

/// All have said that they are up, and nothing else.
fn world(service: Service) -> World {
    let mut world = World::unprobed(vec![with_agents(service)]);
    for target in world.controller.state.targets() {
        says(&mut world, &target.backend.to_string(), Health::Up, NOTHING);
    }
    world
}

fn says(world: &mut World, backend: &str, health: Health, report: AgentReport) {
    let mut probed = probed(&world.controller.state, backend, health);
    probed.result.facts.agent = Some(report);
    world.absorb(Event::Probed(probed));
}

fn up(world: &mut World, backend: &str, report: AgentReport) {
    says(world, backend, Health::Up, report);
}

fn view(world: &mut World, backend: &str) -> view::Backend {
    world.ask(|reply| Request::Backend { backend: name(backend), reply }).unwrap()
}

fn weight(world: &mut World, backend: &str) -> u32 {
    view(world, backend).effective_weight
}

/// The slots of web-1, web-2 and web-3.
fn shares(world: &World) -> [usize; 3] {
    let serving = world.serving();
    ["web-1", "web-2", "web-3"].map(|backend| serving.iter().filter(|it| *it == backend).count())
}

#[test]
fn a_percentage_changes_the_share_with_every_scheduler_but_round_robin() {
    let cases = [
        (Scheduler::RoundRobin, [1, 1, 1]),
        (Scheduler::WeightedRoundRobin, [2, 1, 2]),
        (Scheduler::RandomTwo, [2, 1, 2]),
        (Scheduler::SourceHash, [2, 1, 2]),
        (Scheduler::Maglev, [2, 1, 2]),
    ];
    for (scheduler, expected) in cases {
        let mut world = world(Service { scheduler, ..web(Protocol::Tcp) });

        up(&mut world, "web/web-2", percent(50));

        let (shares, all) = (shares(&world), expected.iter().sum::<usize>());
        let slots: usize = shares.iter().sum();
        for (share, part) in shares.iter().zip(expected) {
            let tolerance = if scheduler.hashes() { all * slots / 50 } else { 0 };
            assert!((share * all).abs_diff(part * slots) <= tolerance, "{scheduler:?}: {shares:?}");
        }
        let backend = view(&mut world, "web/web-2");
        assert_eq!((backend.weight, backend.effective_weight), (100, 50), "{scheduler:?}");
        up(&mut world, "web/web-2", NOTHING);
        assert_eq!(weight(&mut world, "web/web-2"), 50, "it stays");
    }
}

#[test]
fn least_connections_compares_the_percentages_of_the_weights() {
    let mut world = world(Service { scheduler: Scheduler::LeastConnections, ..web(Protocol::Tcp) });

    up(&mut world, "web/web-2", percent(5));

    let weights: Vec<_> = world.maps().maps.backends.values().map(|it| it.weight).collect();
    assert_eq!(weights, [1000, 50, 1000]);
}

#[test]
fn a_percentage_above_100_raises_the_weight_up_to_the_highest_one() {
    let mut world = world(Service { scheduler: Scheduler::WeightedRoundRobin, ..web(Protocol::Tcp) });

    for (said, expected) in [(300, 300), (1_000, 1_000), (25_600, 1_000), (100, 100)] {
        up(&mut world, "web/web-1", percent(said));

        assert_eq!(weight(&mut world, "web/web-1"), expected, "{said}");
    }
}

#[test]
fn a_backend_with_zero_percent_gets_no_new_flows_and_keeps_those_that_it_has() {
    for scheduler in [Scheduler::RoundRobin, Scheduler::LeastConnections] {
        let mut world = world(Service { scheduler, ..web(Protocol::Tcp) });
        let id = world.id("web/web-2");

        up(&mut world, "web/web-2", percent(0));
        assert_eq!(world.offered(), ["web-1", "web-3"], "{scheduler:?}");
        assert_eq!(world.id("web/web-2"), id);
        assert_eq!(weight(&mut world, "web/web-2"), 0);

        up(&mut world, "web/web-2", percent(1));
        assert_eq!(world.offered(), ["web-1", "web-2", "web-3"], "{scheduler:?}");
        assert_eq!(world.id("web/web-2"), id);
    }
}

#[test]
fn drain_and_maint_of_an_agent_end_with_its_ready_and_are_not_the_operators() {
    let mut world = world(web(Protocol::Tcp));
    let id = world.id("web/web-2");

    up(&mut world, "web/web-2", DRAIN);
    up(&mut world, "web/web-2", percent(100));
    assert_eq!(world.offered(), ["web-1", "web-3"], "it stays in drain");
    assert_eq!(world.id("web/web-2"), id);

    up(&mut world, "web/web-2", MAINT);
    assert_eq!(world.id("web/web-2"), None);
    assert_eq!(view(&mut world, "web/web-2").admin_state, AdminState::Ready);
    assert_eq!(world.status().overlay, [""; 0]);

    up(&mut world, "web/web-2", READY);
    assert_eq!(world.offered(), ["web-1", "web-2", "web-3"]);
    assert!(world.host().saved.is_empty());
}

#[test]
fn the_stricter_one_of_the_operators_state_and_the_agents_counts() {
    let mut world = world(web(Protocol::Tcp));
    let states = [(AdminState::Ready, READY), (AdminState::Drain, DRAIN), (AdminState::Maint, MAINT)];
    for (operator, _) in states {
        for (agent, report) in states {
            world.set("web/web-2", operator);
            up(&mut world, "web/web-2", report);

            let strictest = operator.max(agent);
            let gets_flows = world.offered().contains(&"web-2".to_owned());
            assert_eq!(gets_flows, strictest == AdminState::Ready, "{operator:?}, {agent:?}");
            assert_eq!(world.id("web/web-2").is_none(), strictest == AdminState::Maint);
            assert_eq!(view(&mut world, "web/web-2").admin_state, operator);
        }
    }
}

#[test]
fn a_report_of_an_agent_that_is_down_counts_before_the_backend_is_down() {
    let mut world = world(web(Protocol::Tcp));
    let mut probed = probed(&world.controller.state, "web/web-2", Health::Down);
    (probed.change, probed.result.facts.agent) = (None, Some(MAINT));

    world.absorb(Event::Probed(probed));

    assert_eq!(world.id("web/web-2"), None);
}

#[test]
fn an_agent_that_cannot_be_reached_has_said_nothing() {
    let mut world = world(web(Protocol::Tcp));
    up(&mut world, "web/web-2", DRAIN);

    world.probed("web/web-2", Health::Down);
    up(&mut world, "web/web-2", NOTHING);

    assert_eq!(world.offered(), ["web-1", "web-3"]);
}

#[test]
fn a_backend_that_its_agent_makes_ready_starts_slowly() {
    let availability = Availability { slow_start: Duration::from_secs(100), ..Availability::default() };
    let mut world =
        world(Service { availability, scheduler: Scheduler::WeightedRoundRobin, ..web(Protocol::Tcp) });
    up(&mut world, "web/web-2", percent(50));
    assert_eq!(weight(&mut world, "web/web-2"), 50, "another weight is no start");

    up(&mut world, "web/web-2", DRAIN);
    up(&mut world, "web/web-2", READY);

    assert_eq!(weight(&mut world, "web/web-2"), 5, "a tenth of a half");
    world.wait(100_000);
    assert_eq!(weight(&mut world, "web/web-2"), 50);
    up(&mut world, "web/web-2", READY);
    assert_eq!(weight(&mut world, "web/web-2"), 50, "it was ready");
}

#[test]
fn what_was_said_follows_the_backend_and_ends_with_the_type_of_the_check() {
    let mut world = world(web(Protocol::Tcp));
    up(&mut world, "web/web-2", DRAIN);
    let mut edit = |edit: fn(&mut Service)| {
        let mut file = world.host().file.clone().unwrap();
        let mut service = Service::clone(&file.services[0]);
        edit(&mut service);
        file.services[0] = service.into();
        world.host().file = Ok(file);
        world.ask(Request::Reload).unwrap();
        world.offered()
    };

    assert_eq!(edit(|web| web.backends[1].name = "renamed".into()), ["web-1", "web-3"]);
    let tcp = |web: &mut Service| web.health.as_mut().unwrap().probe = Probe::Tcp(crate::probe::Tcp);
    assert_eq!(edit(tcp), ["renamed", "web-1", "web-3"]);

    world.probed("web/renamed", Health::Up);
    let mut file = world.host().file.clone().unwrap();
    file.services[0] = with_agents(Service::clone(&file.services[0])).into();
    world.host().file = Ok(file);
    world.ask(Request::Reload).unwrap();

    assert_eq!(world.offered(), ["renamed", "web-1", "web-3"], "another check has succeeded since");
}

#[test]
fn a_restart_ends_no_flow_and_lets_none_begin_that_an_agent_does_not_want() {
    for (protocol, on_down) in
        [(Protocol::Tcp, OnDown::Keep), (Protocol::Tcp, OnDown::Reset), (Protocol::Udp, OnDown::Reset)]
    {
        let availability = Availability { on_down, ..Availability::default() };
        let mut world =
            world(Service { availability, scheduler: Scheduler::WeightedRoundRobin, ..web(protocol) });
        up(&mut world, "web/web-1", percent(25));
        up(&mut world, "web/web-2", DRAIN);
        up(&mut world, "web/web-3", percent(0));
        let ids = ["web/web-1", "web/web-2", "web/web-3"].map(|backend| world.id(backend));

        world.restart();
        world.absorb(Event::Hops(hops(world.spec())));
        let state = format!("{protocol:?}, {on_down:?}");
        assert_eq!(world.offered(), ["web-1"], "{state}");
        assert_eq!(weight(&mut world, "web/web-1"), 25, "{state}");
        assert_eq!(ids, ["web/web-1", "web/web-2", "web/web-3"].map(|backend| world.id(backend)), "{state}");

        up(&mut world, "web/web-1", NOTHING);
        up(&mut world, "web/web-2", DRAIN);
        up(&mut world, "web/web-3", NOTHING);
        assert_eq!(world.offered(), ["web-1", "web-3"], "{state}: what is assumed ends with the first line");
        assert_eq!(weight(&mut world, "web/web-1"), 100, "{state}");
        assert_eq!(ids, ["web/web-1", "web/web-2", "web/web-3"].map(|backend| world.id(backend)), "{state}");
    }
}

#[test]
fn a_backend_in_maint_by_its_agent_gets_no_flows_after_a_restart() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let on_down = if protocol == Protocol::Udp { OnDown::Reset } else { OnDown::Keep };
        let availability = Availability { on_down, ..Availability::default() };
        let mut world = world(Service { availability, ..web(protocol) });
        up(&mut world, "web/web-2", MAINT);

        world.restart();
        world.absorb(Event::Hops(hops(world.spec())));
        assert_eq!(world.offered(), ["web-1", "web-3"], "{protocol:?}");

        up(&mut world, "web/web-2", MAINT);
        assert_eq!(world.offered(), ["web-1", "web-3"], "{protocol:?}");
        assert_eq!(world.id("web/web-2"), None, "{protocol:?}");

        up(&mut world, "web/web-2", READY);
        assert_eq!(world.offered(), ["web-1", "web-2", "web-3"], "{protocol:?}");
    }
}
