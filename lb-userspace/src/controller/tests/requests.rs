//! Requests of the CLI.

use std::sync::Arc;

use super::*;
use crate::group::status::GroupStatus;

#[test]
fn an_added_backend_is_probed_and_then_serves_after_the_others() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let body = NewBackend { address: socket("10.0.0.14:8080"), weight: 100, backup: false, max_flows: 0 };

    let answer = world.ask(add(name("web/web-0"), body));

    assert_eq!(answer.unwrap().health, view::Health::Unknown);
    assert!(world.targets.borrow().iter().any(|target| target.backend == name("web/web-0")));
    assert!(world.hops.borrow().contains(&path("10.0.0.14".parse().unwrap())));

    world.absorb(Event::Hops(hops(world.spec())));
    world.probed("web/web-0", Health::Up);

    assert_eq!(world.serving(), ["web-1", "web-2", "web-3", "web-0"]);
}

#[test]
fn an_address_removed_and_added_again_serves_without_another_netlink_report() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let body = NewBackend { address: socket("10.0.0.12:8080"), weight: 100, backup: false, max_flows: 0 };

    world.ask(remove(name("web/web-2"))).unwrap();
    world.ask(add(name("web/again"), body)).unwrap();
    world.probed("web/again", Health::Up);

    assert_eq!(world.serving(), ["web-1", "web-3", "again"]);
}

#[test]
fn missing_objects_are_not_found() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let (dns, web_9) = (Some("dns".into()), name("web/web-9"));
    let no_service = world.ask(|reply| Request::Backends { service: dns, reply }).unwrap_err();
    let no_backend = world.ask(patch("web/web-9", AdminState::Drain)).unwrap_err();
    let no_target = world.ask(|reply| Request::Probe { backend: web_9, reply }).unwrap_err();

    for problem in [no_service, no_backend, no_target] {
        assert_eq!(problem.kind, ProblemKind::NotFound);
    }
}

#[test]
fn a_node_shows_its_group_if_it_is_in_one() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let alone = world.ask(Request::Group).unwrap_err();
    assert_eq!((alone.kind, world.status().group), (ProblemKind::NotFound, None));

    let status = GroupStatus { node: "lb-1".into(), ports: (1, 2), ..GroupStatus::default() };
    world.host().group = Some(Arc::new(status));

    let group = world.ask(Request::Group).unwrap();
    assert_eq!((group.node.as_str(), group.port_share, group.port_shares), ("lb-1", 1, 2));
    assert_eq!(world.status().group, Some(group));
}

#[test]
fn flows_are_listed_by_service_backend_and_network_up_to_a_limit() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let ids = ["web/web-1", "web/web-2"].map(|it| world.id(it).unwrap());
    world.add_flows(ids[0], 4);
    world.add_flows(ids[1], 3);
    world.add_flows(BackendId(9_999), 2);
    let all = FlowQuery::default();

    let count = |world: &mut World, query| world.list(query).unwrap().len();

    assert_eq!(count(&mut world, all.clone()), 7, "flows of no backend are not listed");
    assert_eq!(count(&mut world, FlowQuery { backend: Some("web/web-2".into()), ..all.clone() }), 3);
    assert_eq!(count(&mut world, FlowQuery { client: Some("198.51.100.0/31".into()), ..all.clone() }), 4);
    assert_eq!(count(&mut world, FlowQuery { client: Some("198.51.100.2".into()), ..all.clone() }), 2);
    assert_eq!(count(&mut world, FlowQuery { limit: Some(5), ..all.clone() }), 5);
    let nonsense = FlowQuery { client: Some("everywhere".into()), ..all.clone() };
    assert_eq!(world.list(nonsense).unwrap_err().kind, ProblemKind::Invalid);
    let unknown = FlowQuery { service: Some("dns".into()), ..all };
    assert_eq!(world.list(unknown).unwrap_err().kind, ProblemKind::NotFound);
}

#[test]
fn flows_are_removed_by_service_backend_and_network_up_to_a_limit_and_all_others_stay() {
    let mut world = World::all_up(vec![web(Protocol::Tcp), dns()]);
    let ids = ["web/web-1", "web/web-2", "dns/dns-1"].map(|it| world.id(it).unwrap());
    for (id, count) in ids.into_iter().zip([40, 30, 20]) {
        world.add_flows(id, count);
    }
    let all = FlowQuery { all: true, ..FlowQuery::default() };
    let left = |world: &mut World| {
        let held = world.maps().held();
        ids.map(|id| held.iter().filter(|flow| flow.backend_id == id).count())
    };

    let by_backend = FlowQuery { backend: Some("web/web-2".into()), ..FlowQuery::default() };
    let some = FlowQuery { limit: Some(7), ..by_backend.clone() };
    assert_eq!((world.remove_flows(some), left(&mut world)), (Ok(7), [40, 23, 20]));
    assert_eq!((world.remove_flows(by_backend), left(&mut world)), (Ok(23), [40, 0, 20]));

    let by_client = FlowQuery { client: Some("198.51.100.0/31".into()), ..FlowQuery::default() };
    assert_eq!((world.remove_flows(by_client), left(&mut world)), (Ok(4), [38, 0, 18]));

    let by_service = FlowQuery { service: Some("web".into()), ..FlowQuery::default() };
    assert_eq!((world.remove_flows(by_service), left(&mut world)), (Ok(38), [0, 0, 18]));
    assert_eq!((world.remove_flows(all.clone()), left(&mut world)), (Ok(18), [0, 0, 0]));
    assert_eq!(world.remove_flows(all), Ok(0));

    let unknown = FlowQuery { backend: Some("web/web-9".into()), ..FlowQuery::default() };
    assert_eq!(world.remove_flows(unknown).unwrap_err().kind, ProblemKind::NotFound);
}

#[test]
fn a_removal_that_fails_says_so() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.maps().fail_sweep = true;

    let problem = world.remove_flows(FlowQuery { service: Some("web".into()), ..FlowQuery::default() });

    let detail = problem.unwrap_err().detail;
    assert!(
        detail.starts_with("cannot end flows: ") && detail.ends_with("(0 flows were removed before)"),
        "{detail}"
    );
}
