//! How a state is compiled. Sequences of plans are tested in `diff`.

use std::time::{Duration, Instant};

use lb_common::{
    limits::{BACKEND_IDS, MAX_PLACES},
    net::Protocol,
    pool::SlotLine,
};
use proptest::prelude::*;

use super::*;
use crate::{
    controller::{
        diff::diff,
        fixture::{backend, probed, service, serving, socket, unprobed, web},
    },
    event::Health,
    probe::{AgentReport, WeightPercent, fixture::configured},
    spec::{AdminState, Availability, Scheduler, ShareFlows},
};

#[test]
fn a_service_has_a_pool_per_family_and_markers_for_its_addresses() {
    let mut web = web(Protocol::Tcp);
    web.listen.push(socket("[2001:db8::10]:80"));
    web.backends.push(backend("web-v6", "[fd00::11]:8080"));

    let want = compiled(&[web]);

    let keys: Vec<_> =
        want.services.iter().map(|(it, value)| (it.address.to_string(), it.port.get(), value.pool)).collect();
    let marker = ServiceEntry::NO_POOL;
    assert_eq!(
        keys,
        [
            ("10.0.0.1".into(), 0, marker),
            ("192.0.2.10".into(), 0, marker),
            ("192.0.2.10".into(), 80, PoolNumber(0)),
            ("2001:db8::10".into(), 0, marker),
            ("2001:db8::10".into(), 80, PoolNumber(1)),
        ]
    );
    assert_eq!(want.offered(PoolNumber(0)), [1, 2, 3].map(BackendId));
    assert_eq!(want.offered(PoolNumber(1)), [BackendId(4)]);
    assert_eq!(want.sources[&want.pools[&PoolNumber(0)].sources()].len(), 1);
    assert_eq!(
        want.pools[&PoolNumber(1)].sources(),
        SourceSetNumber::NONE,
        "the source is of the other family"
    );
}

#[test]
fn nat_uses_no_source() {
    let want = compiled(&[Service { mode: Mode::Nat, ..web(Protocol::Tcp) }]);

    assert_eq!(want.services.len(), 2);
    assert!(
        want.pools
            .values()
            .all(|pool| pool.mode() == Some(Mode::Nat) && pool.sources() == SourceSetNumber::NONE)
    );
    assert_eq!(want.sources.len(), 0);
}

#[test]
fn computed_slots_follow_from_the_file_whatever_the_state_of_the_backends() {
    let sharing = || Service {
        mode: Mode::Nat,
        scheduler: Scheduler::Maglev,
        share_flows: ShareFlows::Exceptions,
        ..web(Protocol::Tcp)
    };
    let all = compiled(&[sharing()]);
    let value = |want: &Snapshot| *want.services.values().find(|it| it.computed.is_some()).unwrap();
    let computed = |want: &Snapshot| want.offered(value(want).computed.unwrap()).to_vec();
    assert_eq!(all.offered(value(&all).pool), computed(&all));

    let have = Indexed::from(all.clone());
    let mut state = serving(vec![sharing()], Instant::now());
    let admin = [("web-1", AdminState::Drain), ("web-2", AdminState::Maint)];
    let admin = admin.map(|(name, to)| (BackendName::new("web", name), to));
    state.set_intent(state.spec().clone(), admin.into(), Instant::now());
    let fewer = compile(&state, &have).unwrap();

    assert!(fewer.offered(value(&fewer).pool).iter().all(|id| *id == BackendId(3)));
    let gone: Vec<_> =
        computed(&all).iter().map(|id| if id.0 == 2 { BackendId::NONE } else { *id }).collect();
    assert_eq!(computed(&fewer), gone);
    let origins: Vec<_> =
        fewer.origins.iter().map(|(backend, listen)| format!("{backend} {listen}")).collect();
    let of = |host| format!("tcp 10.0.0.{host}:8080 tcp 192.0.2.10:80");
    assert_eq!(origins, [of(11), of(13)]);

    let none = compiled(&[Service { share_flows: ShareFlows::All, ..sharing() }]);
    assert!(none.origins.is_empty() && none.services.values().all(|it| it.computed.is_none()));
}

/// How a change of the file affects the ids of the three backends: `=` kept, `+` another, `-` none.
#[test]
fn a_backend_keeps_its_id_while_its_flows_are_valid() {
    type Edit = fn(&mut Service);
    let cases: &[(&str, Edit, &str)] = &[
        ("nothing", |_| {}, "==="),
        ("another address", |it| it.backends[1].address = socket("10.0.0.99:8080"), "=+="),
        ("another port", |it| it.backends[1].address.set_port(9090), "=+="),
        ("another name", |it| it.backends[1].name = "web-9".into(), "==="),
        ("removed", |it| it.backends.truncate(2), "==-"),
        ("another order", |it| it.backends.reverse(), "==="),
        ("weight 0", |it| it.backends[0].weight = 0, "==="),
        ("a backup", |it| it.backends[0].backup = true, "==="),
        (
            "swapped names",
            |it| (it.backends[0].name, it.backends[1].name) = ("web-2".into(), "web-1".into()),
            "===",
        ),
        ("another service name", |it| it.name = "shop".into(), "==="),
        ("another listen address", |it| it.listen = vec![socket("192.0.2.99:80")], "==="),
        ("another mode", |it| it.mode = Mode::Nat, "==="),
        ("another answer", |it| it.reject = Reject::Drop, "==="),
        ("another source", |it| it.sources = vec!["10.0.0.2".parse().unwrap()], "==="),
        ("another protocol", |it| it.protocol = Protocol::Udp, "+++"),
        ("no check", |it| it.health = None, "==="),
        ("another scheduler", |it| it.scheduler = Scheduler::Maglev, "==="),
    ];
    for (about, edit, expected) in cases {
        let have = compiled(&[web(Protocol::Tcp)]);
        let mut changed = web(Protocol::Tcp);
        edit(&mut changed);

        let want = compiled_after(&have, vec![changed]);

        let fate = |id: &BackendId| {
            let before = have.backend(*id).unwrap();
            let same_place = |it: &&backend::Backend| it.address == before.address && it.port == before.port;
            match want.backends.values().find(same_place) {
                Some(after) if after.id == *id => '=',
                Some(_) => '+',
                None if want.backends.len() == 3 => '+',
                None => '-',
            }
        };
        assert_eq!(&[1, 2, 3].map(BackendId).iter().map(fate).collect::<String>(), expected, "{about}");
    }
}

#[test]
fn ids_wrap_around_without_zero_and_skip_those_in_use() {
    let have = Snapshot { next_backend_id: BackendId(BACKEND_IDS - 1), ..Snapshot::default() };

    let first = compiled_after(&have, vec![web(Protocol::Tcp)]);

    assert_eq!(first.backends.values().map(|it| it.id.0).collect::<Vec<_>>(), [1, 2, BACKEND_IDS - 1]);
    assert_eq!(first.next_backend_id, BackendId(3));

    let again = Snapshot { next_backend_id: BackendId(1 + MAX_PLACES), ..first };
    let mut more = web(Protocol::Tcp);
    more.backends.push(backend("web-4", "10.0.0.14:8080"));
    let want = compiled_after(&again, vec![more]);

    assert_eq!(want.backends[&3].id, BackendId(MAX_PLACES + 3), "places 1 and 2 are in use");
}

#[test]
fn the_error_names_what_does_not_fit() {
    let many = |count: usize, of_service: usize| -> Vec<Service> {
        let backends: Vec<_> = (0..count)
            .map(|n| backend(&format!("b{n}"), &format!("10.0.{}.{}:80", n >> 8, n & 255)))
            .collect();
        let chunks = backends.chunks(of_service).enumerate();
        chunks
            .map(|(n, it)| {
                service(&format!("s{n}"), Protocol::Tcp, &format!("192.0.2.1:{}", n + 1), it.to_vec())
            })
            .collect()
    };
    let compiled = |services| {
        let mut state = all_serving(services);
        state.set_room(Room { services: 512, backends: 2048, slots: 8192 });
        compile(&state, &Indexed::default())
    };
    let refusal = |services| compiled(services).unwrap_err();
    let mut sources = web(Protocol::Tcp);
    sources.sources = (0..17).map(|n| IpAddr::from([10, 0, 1, n])).collect();

    assert_eq!(refusal(many(2049, 512)), NoRoom::Backends(2048));
    assert_eq!(refusal(many(513, 1)), NoRoom::Services(512));
    assert_eq!(refusal(vec![sources]), NoRoom::PoolSources { service: "web".into() });
    assert!(compiled(many(2048, 1024)).is_ok());
}

/// New things are written before old ones are deleted, so there is room for both.
#[test]
fn at_full_limits_everything_can_be_replaced_at_once() {
    let room = Room { services: 1, backends: 3, slots: 16 };
    let of = |name: &str, third: u8| {
        let mut state = all_serving(vec![Service {
            name: name.into(),
            listen: (1..=4).map(|port| socket(&format!("192.0.{third}.1:{port}"))).collect(),
            backends: (1..=3)
                .map(|n| backend(&format!("{name}{n}"), &format!("10.{third}.0.{n}:80")))
                .collect(),
            ..web(Protocol::Tcp)
        }]);
        state.set_room(room);
        state
    };
    let have = compile(&of("a", 1), &Indexed::default()).unwrap();

    let want = compile(&of("b", 2), &have.clone().into()).unwrap();

    let mut most = have.clone();
    let mut entries = 0;
    for op in diff(&have, &want) {
        most.apply(&op);
        entries = entries.max(most.services.len());
        assert!(most.service_names.keys().all(|number| number.0 < room.service_numbers()));
        assert!(most.pools.keys().all(|number| number.0 < room.pools()));
    }
    assert_eq!(most, want);
    assert!(entries > room.service_keys() as usize / 2 && entries <= room.service_entries() as usize);
}

#[test]
fn equal_sources_share_a_set() {
    let [a, mut b, mut c] = ["a", "b", "c"].map(|name| Service { name: name.into(), ..web(Protocol::Tcp) });
    b.listen = vec![socket("192.0.2.10:81")];
    c.listen = vec![socket("192.0.2.10:82")];
    c.sources.push("10.0.0.2".parse().unwrap());

    let want = compiled(&[a, b, c]);

    let sets: Vec<_> = want.pools.values().map(|pool| pool.sources()).collect();
    assert_eq!(sets, [1, 1, 2].map(SourceSetNumber));
    assert_eq!(want.sources.values().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_change_of_sources_keeps_the_slots() {
    let have = compiled(&[web(Protocol::Tcp)]);
    let mut changed = web(Protocol::Tcp);
    changed.sources = vec!["10.0.0.2".parse().unwrap()];

    let want = compiled_after(&have, vec![changed]);

    assert_eq!(want.pools[&PoolNumber(0)].slots(), have.pools[&PoolNumber(0)].slots());
    assert_ne!(want.pools[&PoolNumber(0)].sources(), have.pools[&PoolNumber(0)].sources());
    assert_eq!(want.sources.len(), 2, "the former set may still be read");
}

/// As after a takeover from 0.1.0, which copies services but no pools.
#[test]
fn a_new_service_does_not_get_a_pool_that_a_former_one_refers_to() {
    let mut api = Service { name: "api".into(), ..web(Protocol::Tcp) };
    api.listen = vec![socket("192.0.2.10:81")];
    let have = Snapshot { pools: BTreeMap::new(), ..compiled(&[web(Protocol::Tcp)]) };

    let want = compiled_after(&have, vec![api, web(Protocol::Tcp)]);

    let pool_of = |port| {
        let mut listens = want.services.iter().filter(|(listen, _)| listen.port.get() == port);
        listens.next().map(|(_, value)| value.pool)
    };
    assert_eq!((pool_of(81), pool_of(80)), (Some(PoolNumber(1)), Some(PoolNumber(0))));
    assert_eq!(want.pools.len(), 2);
}

const SMALL: Room = Room { services: 3, backends: 9, slots: 64 };

/// Pools 0, 1 and 2 have three backends each. The last one may need 32 slots, so the budget is used up.
fn three_pools(weights: [u32; 3]) -> State {
    let mut services: Vec<Service> = (0..3)
        .map(|n| Service {
            name: format!("s{n}"),
            listen: vec![socket(&format!("192.0.2.10:{}", 80 + n))],
            ..web(Protocol::Tcp)
        })
        .collect();
    services[2].scheduler = Scheduler::WeightedRoundRobin;
    for (backend, weight) in services[2].backends.iter_mut().zip(weights) {
        backend.weight = weight;
    }
    let mut state = all_serving(services);
    state.set_room(SMALL);
    state
}

/// The same contents with the ranges of the pools at these slots.
fn laid_out(have: &Snapshot, offsets: [u32; 3]) -> Indexed {
    let mut laid_out = have.clone();
    laid_out.slots.clear();
    for (pool, offset) in laid_out.pools.values_mut().zip(offsets) {
        let range = SlotRange { offset: SlotIndex(offset), ..pool.slots() };
        laid_out.slots.insert(range.offset, have.ids(*pool).to_vec().into());
        *pool = Pool::new(range, pool.picker().unwrap(), pool.mode().unwrap(), pool.sources());
    }
    laid_out.into()
}

fn offsets(snapshot: &Snapshot) -> Vec<u32> {
    snapshot.pools.values().map(|pool| pool.slots().offset.0).collect()
}

#[test]
fn if_a_schedule_finds_no_gap_all_ranges_move_to_the_other_half() {
    let have = compile(&three_pools([1, 1, 1]), &Indexed::default()).unwrap();
    assert_eq!(offsets(&have), [0, 16, 32]);

    for (before, after) in
        [([0, 32, 64], [96, 112, 128]), ([112, 144, 176], [0, 16, 32]), ([0, 16, 32], [0, 16, 48])]
    {
        let have = laid_out(&have, before);

        let want = compile(&three_pools([20, 7, 3]), &have).unwrap();

        assert_eq!(offsets(&want), after, "{before:?}");
        assert_eq!(want.offered(PoolNumber(2)).len(), 30);
        let mut maps = (*have).clone();
        for op in diff(&have, &want) {
            maps.apply(&op);
            assert_eq!(maps.fault(), None, "{op:?}");
        }
    }
}

#[test]
fn an_interrupted_move_is_completed_by_the_next_plan_for_everything() {
    let state = three_pools([1, 1, 1]);
    let have = compile(&state, &Indexed::default()).unwrap();

    for before in [[96, 32, 64], [96, 112, 64], [0, 32, 96]] {
        let want = compile(&state, &laid_out(&have, before)).unwrap();

        let halves: BTreeSet<bool> = offsets(&want).iter().map(|offset| *offset < 96).collect();
        assert_eq!(halves.len(), 1, "{before:?}: {:?}", offsets(&want));
    }
}

proptest! {
    /// Each backend has a weight, and comes up at some second or stays down.
    #[test]
    fn slow_starts_never_need_more_slots_than_there_is_room_for(
        scheduler in prop::sample::select(&[Scheduler::RoundRobin, Scheduler::WeightedRoundRobin]),
        length in 0..100u64,
        backends in prop::collection::vec((prop_oneof![0..=1000u32, Just(100)], 0..120u64, any::<bool>()), 1..500),
    ) {
        let start = Instant::now();
        let service = Service {
            scheduler,
            availability: Availability { slow_start: Duration::from_secs(length), ..Availability::default() },
            ..service_of(backends.iter().map(|(weight, ..)| *weight))
        };
        let most = service.most_slots();
        let mut state = serving(vec![service], start);
        let report = |state: &mut State, n: usize, health, second| {
            state.probed(probed(state, &format!("web/b{n}"), health), start + Duration::from_secs(second))
        };
        for (n, (_, second, is_up)) in backends.iter().enumerate() {
            report(&mut state, n, Health::Down, *second);
            if *is_up {
                report(&mut state, n, Health::Up, *second);
            }
        }
        state.tick(start + Duration::from_secs(120));

        let want = compile(&state, &Indexed::default()).unwrap();

        let needed: u32 = want.slots.values().map(|ids| SlotLine::occupied(ids.len() as u32)).sum();
        prop_assert!(u64::from(needed) <= most, "{needed}, not at most {most}");
    }
}

proptest! {
    /// Each backend has a weight and a percentage of it.
    #[test]
    fn agents_never_need_more_slots_than_there_is_room_for(
        scheduler in prop::sample::select(&[Scheduler::RoundRobin, Scheduler::WeightedRoundRobin]),
        backends in prop::collection::vec((0..=1000u32, prop_oneof![0..=100u32, 0..=25_600u32]), 1..500),
    ) {
        let mut service = service_of(backends.iter().map(|(weight, _)| *weight));
        service.scheduler = scheduler;
        service.health.as_mut().unwrap().probe = configured("type = 'agent'");
        let most = service.most_slots();
        let mut state = unprobed(vec![service], Instant::now());
        for (n, (_, percent)) in backends.iter().enumerate() {
            let mut probed = probed(&state, &format!("web/b{n}"), Health::Up);
            let weight = Some(WeightPercent(*percent));
            probed.result.facts.agent = Some(AgentReport { state: None, weight });
            state.probed(probed, Instant::now());
        }

        let want = compile(&state, &Indexed::default()).unwrap();

        let needed: u32 = want.slots.values().map(|ids| SlotLine::occupied(ids.len() as u32)).sum();
        prop_assert!(u64::from(needed) <= most, "{needed}, not at most {most}");
    }
}

/// A service with a backend for each of these weights.
fn service_of(weights: impl Iterator<Item = u32>) -> Service {
    let backends = weights.enumerate().map(|(n, weight)| Backend {
        weight,
        ..backend(&format!("b{n}"), &format!("10.0.{}.{}:80", n >> 8, n & 255))
    });
    Service { backends: backends.collect(), ..web(Protocol::Tcp) }
}

fn compiled(services: &[Service]) -> Snapshot {
    compiled_after(&Snapshot::default(), services.to_vec())
}

fn compiled_after(have: &Snapshot, services: Vec<Service>) -> Snapshot {
    compile(&serving(services, Instant::now()), &have.clone().into()).unwrap()
}

/// Without health checks, so that all backends are up at once.
fn all_serving(services: Vec<Service>) -> State {
    let services = services.into_iter().map(|service| Service { health: None, ..service }).collect();
    serving(services, Instant::now())
}
