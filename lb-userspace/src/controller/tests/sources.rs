//! Backends are resolved and probed from the source that they see.

use lb_common::service::Mode;

use super::*;
use crate::{event::Path, spec::Announce};

#[test]
fn backends_are_looked_up_and_probed_from_the_source_that_they_see() {
    let two = ["10.0.0.1", "10.0.0.2"].map(|source| source.parse::<IpAddr>().unwrap());
    let own = two.into();
    let cases: [(Mode, BTreeSet<IpAddr>, Option<IpAddr>); 5] = [
        (Mode::FullNat, own, Some(two[0])),
        (Mode::FullNat, [two[1]].into(), Some(two[1])),
        // Routes from an address that this host lacks cannot be looked up. A warning says so.
        (Mode::FullNat, ["10.0.0.9".parse().unwrap()].into(), None),
        (Mode::FullNat, ["fd00::1".parse().unwrap()].into(), None),
        (Mode::Nat, two.into(), None),
    ];
    for (mode, addresses, from) in cases {
        let case = format!("{mode:?} {addresses:?}");
        let mut service = web(Protocol::Tcp);
        (service.mode, service.sources) = (mode, [&two[..], &["fd00::1".parse().unwrap()]].concat());
        let mut world = World::all_up(vec![service]);
        world.host().addresses = addresses;

        world.absorb(Event::LinksChanged);

        assert!(world.targets.borrow().iter().all(|target| target.source == from), "{case}");
        let to = [11, 12, 13].map(|low| IpAddr::from([10, 0, 0, low]));
        assert_eq!(*world.hops.borrow(), to.map(|to| Path { to, from }).into(), "{case}");
        assert_eq!(world.serving(), ["web-1", "web-2", "web-3"], "{case}: all serve before the new lookup");
    }
}

#[test]
fn a_node_that_announces_its_source_is_no_less_healthy_while_answers_to_that_go_elsewhere() {
    let announce = Some(Announce { device: "lo".into() });
    let mut world = World::unprobed_of(Spec { announce, ..spec(vec![web(Protocol::Tcp)]) });
    world.host().addresses = ["10.0.0.1".parse().unwrap()].into();

    world.absorb(Event::LinksChanged);

    let probed_from: Vec<_> = world.targets.borrow().iter().map(|target| target.source).collect();
    assert_eq!(probed_from, [None; 3]);
    let from = Some("10.0.0.1".parse().unwrap());
    assert!(world.hops.borrow().iter().all(|path| path.from == from), "routes are those of its flows");
}

#[test]
fn each_service_uses_next_hops_from_its_own_source() {
    let mut other = web(Protocol::Udp);
    (other.name, other.sources) = ("dns".into(), vec!["10.0.0.2".parse().unwrap()]);
    let mut world = World::all_up(vec![web(Protocol::Tcp), other]);
    world.host().addresses = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap()).into();
    world.absorb(Event::LinksChanged);
    let paths = world.hops.borrow().clone();
    let is_known = |path: &Path| path.from == Some("10.0.0.1".parse().unwrap());
    let state =
        |path: Path| if is_known(&path) { HopState::Resolved(hop(path.to)) } else { HopState::NoRoute };

    world.absorb(Event::Hops(paths.into_iter().map(|path| (path, state(path))).collect()));

    let warnings = world.status().warnings;
    let lost: Vec<_> = warnings.iter().filter(|it| it.contains("no route")).collect();
    assert_eq!(lost.len(), 3, "{warnings:?}");
    assert!(lost.iter().all(|it| it.starts_with("backend dns/") && it.contains("from 10.0.0.2")), "{lost:?}");
}
