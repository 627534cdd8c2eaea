//! Plans between compiled snapshots of random histories: changes, crashes and restarts.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    time::{Duration, Instant},
};

use lb_common::{
    backend::BackendId,
    limits::{BACKEND_IDS, Room},
    net::Protocol,
    pool::{SlotRange, SourceSetNumber},
    service::Mode,
};
use proptest::prelude::*;

use super::*;
use crate::{
    controller::{
        compile::compile,
        fixture::{backend, eth0, hops, probed, service, unprobed},
        index::Indexed,
        plan::plan,
        roles::RoleMemory,
        snapshot::place,
        state::State,
    },
    event::{Health, HopState},
    spec::{AdminState, BackendName, Scheduler, Service, ShareFlows, Spec},
};

const SERVICES: u8 = 3;
const BACKENDS: u8 = 4;
/// The highest weight, and the one that backends begin with.
const WEIGHT: u32 = 100;
/// No more slots than all services need at the most: in each of two families two backends, and whole lines; the first service
/// may need as many again.
const ROOM: Room = Room { services: 3, backends: 12, slots: 4 * 2 * 208 };

/// An action of an operator, a probe, the network or a crash.
#[derive(Clone, Debug)]
enum Change {
    ToggleService(u8),
    ToggleBackend(u8, u8),
    MoveBackend(u8, u8, u8),
    Admin(u8, u8, AdminState),
    Weight(u8, u8, u32),
    Schedule(u8, Scheduler),
    Backup(u8, u8, bool),
    Health(u8, u8, Health),
    /// The listen address of one service goes to the other.
    SwapListens(u8, u8),
    /// Two services, or two backends of one, swap names.
    SwapServiceNames(u8, u8),
    SwapBackendNames(u8, u8, u8),
    SwitchProtocol(u8),
    SwitchMode(u8),
    /// Of one service only: a backend may reply for one service whose flows are computed.
    ShareFlows(ShareFlows),
    Unplug,
    Plug,
    LoseHop(u8, HopState),
    FindHops,
    RoutingChanged,
    Wait(u64),
    /// No packet reads any longer what fell out of use before the last grace period began.
    GracePeriodEnds,
    /// The daemon dies after this many operations of its next plan, and is started again.
    CrashAfter(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let service = || 0..SERVICES;
    let backend = || 0..BACKENDS;
    let admin = prop_oneof![Just(AdminState::Ready), Just(AdminState::Drain), Just(AdminState::Maint)];
    let health = prop_oneof![3 => Just(Health::Up), 2 => Just(Health::Down)];
    let weight = prop_oneof![Just(0), Just(1), 2..WEIGHT, Just(WEIGHT)];
    let scheduler = prop_oneof![
        Just(Scheduler::RoundRobin),
        Just(Scheduler::WeightedRoundRobin),
        Just(Scheduler::LeastConnections),
        Just(Scheduler::RandomTwo)
    ];
    let lost = prop_oneof![
        Just(HopState::NoRoute),
        Just(HopState::Local),
        Just(HopState::Outside { interface: "eth9".into(), is_ethernet: true }),
        Just(HopState::Unresolved { next_hop: [10, 0, 0, 254].into(), interface: "eth0".into() }),
    ];
    prop_oneof![
        1 => service().prop_map(Change::ToggleService),
        4 => (service(), backend()).prop_map(|(s, b)| Change::ToggleBackend(s, b)),
        2 => (service(), backend(), 0..3u8).prop_map(|(s, b, to)| Change::MoveBackend(s, b, to)),
        3 => (service(), backend(), admin).prop_map(|(s, b, to)| Change::Admin(s, b, to)),
        3 => (service(), backend(), weight).prop_map(|(s, b, to)| Change::Weight(s, b, to)),
        2 => (service(), scheduler).prop_map(|(s, to)| Change::Schedule(s, to)),
        1 => (service(), backend(), any::<bool>()).prop_map(|(s, b, to)| Change::Backup(s, b, to)),
        8 => (service(), backend(), health).prop_map(|(s, b, to)| Change::Health(s, b, to)),
        1 => (service(), service()).prop_map(|(a, b)| Change::SwapListens(a, b)),
        1 => (service(), service()).prop_map(|(a, b)| Change::SwapServiceNames(a, b)),
        2 => (service(), backend(), backend()).prop_map(|(s, a, b)| Change::SwapBackendNames(s, a, b)),
        1 => service().prop_map(Change::SwitchProtocol),
        1 => service().prop_map(Change::SwitchMode),
        2 => prop_oneof![Just(ShareFlows::All), Just(ShareFlows::Exceptions)].prop_map(Change::ShareFlows),
        1 => Just(Change::Unplug),
        2 => Just(Change::Plug),
        1 => (backend(), lost).prop_map(|(b, to)| Change::LoseHop(b, to)),
        2 => Just(Change::FindHops),
        1 => Just(Change::RoutingChanged),
        4 => (0..1_500u64).prop_map(Change::Wait),
        3 => Just(Change::GracePeriodEnds),
        3 => (0..30usize).prop_map(Change::CrashAfter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_operation_is_safe_and_the_last_one_reaches_the_goal(
        changes in prop::collection::vec(change(), 1..60),
        at_once in 1..4usize,
        first_id in prop_oneof![Just(0), BACKEND_IDS - 8..BACKEND_IDS],
    ) {
        let mut world = World::new(first_id);

        for changes in changes.chunks(at_once) {
            changes.iter().for_each(|change| world.make(change));
            world.reconcile()?;
        }
    }
}

struct World {
    now: Instant,
    spec: Spec,
    admin: BTreeMap<BackendName, AdminState>,
    state: State,
    maps: Indexed,
    is_plugged: bool,
    crash_after: Option<usize>,
    retired: BTreeSet<BackendId>,
    /// With the number of the grace period that must end before they may be written.
    left_slots: BTreeMap<SlotRange, u64>,
    left_sources: BTreeMap<SourceSetNumber, u64>,
    grace_period: GracePeriods,
}

/// The grace periods that have begun, over all daemons.
#[derive(Debug, Default)]
struct GracePeriods {
    begun: u64,
    ended: u64,
    /// The running daemon's number for the last grace period, until that ends.
    pending: Option<u64>,
}

impl World {
    fn new(first_id: u32) -> Self {
        let now = Instant::now();
        let services: Vec<_> = (0..SERVICES).map(a_service).collect();
        let mut state = unprobed(services, now);
        state.set_room(ROOM);
        Self {
            now,
            spec: state.spec().clone(),
            admin: BTreeMap::new(),
            state,
            maps: Snapshot { next_backend_id: BackendId(first_id), ..Snapshot::default() }.into(),
            is_plugged: true,
            crash_after: None,
            retired: BTreeSet::new(),
            left_slots: BTreeMap::new(),
            left_sources: BTreeMap::new(),
            grace_period: GracePeriods::default(),
        }
    }

    fn reconcile(&mut self) -> Result<(), TestCaseError> {
        self.state.tick(self.now);
        if let Some(round) = self.state.begin_grace_period(self.now) {
            self.grace_period.begun += 1;
            self.grace_period.pending = Some(round);
        }
        if compile(&self.state, &self.maps).is_err_and(|no_room| no_room.ends_with_grace()) {
            self.make_room()?;
        }
        let have = self.maps.clone();
        let want = compile(&self.state, &have).expect("what may be in force fits");
        prop_assert_eq!(want.fault(), None);
        prop_assert_eq!(diff(&want, &want), vec![]);
        let crash = self.crash_after.take();
        let scope = self.state.dirty().cloned().unwrap_or_default();
        let plan = plan(&self.state, &have, &scope).expect("what may be in force fits");
        for op in plan.iter().take(crash.unwrap_or(usize::MAX)) {
            self.step(op)?;
        }
        if crash.is_some() {
            self.start_again();
            return Ok(());
        }

        prop_assert_eq!(&*self.maps, &want, "a plan for {:?} must lead to the compiled contents", scope);
        self.state.set_clean();
        prop_assert_eq!(&self.maps, &Indexed::from(want.clone()), "the index follows each operation");
        let again = compile(&self.state, &self.maps).expect("what may be in force fits");
        prop_assert_eq!(diff(&want, &again), vec![], "nothing is left to change");
        Ok(())
    }

    /// As the controller does: waits for a grace period, and frees what no packet reads.
    fn make_room(&mut self) -> Result<(), TestCaseError> {
        self.state.end_grace();
        self.grace_period.begun += 1;
        (self.grace_period.ended, self.grace_period.pending) = (self.grace_period.begun, None);
        let unread = self.maps.part(iter::empty(), self.state.grace());
        let none = Snapshot { next_backend_id: unread.next_backend_id, ..Snapshot::default() };
        diff(&unread, &none).iter().try_for_each(|op| self.step(op))
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        self.state.applying(op, &self.maps, self.now);
        self.check_what_is_written(op)?;
        if let Op::PutPool(number, _) | Op::DeletePool(number) = op
            && let Some(before) = self.maps.pools.get(number)
        {
            let next = self.grace_period.begun + 1;
            self.left_slots.insert(before.slots(), next);
            self.left_sources.insert(before.sources(), next);
        }
        if let Op::PutBackend(backend) = op {
            prop_assert!(!self.retired.contains(&backend.id), "{op:?} reuses an id");
            let there = self.maps.backends.get(&place(backend.id));
            prop_assert!(there.is_none_or(|there| there.id == backend.id), "{op:?} overwrites a used place");
        }
        if let Op::DeleteBackend(place) = op {
            self.retired.extend(self.maps.backends.get(place).map(|it| it.id));
        }
        self.maps.apply(op);
        prop_assert_eq!(self.maps.fault(), None, "after {:?}", op);
        Ok(())
    }

    /// No packet can be reading what is written: no pool refers to it, and none did when the last completed grace
    /// period began.
    fn check_what_is_written(&self, op: &Op) -> Result<(), TestCaseError> {
        let range = if let Op::PutSlots(offset, ids) = op {
            Some(SlotRange { offset: *offset, length: ids.len() as u32 })
        } else if let Op::DeleteSlots(range) = op {
            Some(*range)
        } else {
            None
        };
        let set = if let Op::PutSources(set, _) | Op::DeleteSources(set) = op { Some(*set) } else { None };
        let is_read = |last: &u64| *last > self.grace_period.ended;
        let overlap = |a: SlotRange, b: SlotRange| a.offset < b.end() && b.offset < a.end();

        if let Some(range) = range {
            let in_force = self.maps.pools.values().find(|pool| overlap(pool.slots(), range));
            prop_assert_eq!(in_force, None, "{:?}: it is active", op);
            let mut left = self.left_slots.iter();
            let left = left.find(|(it, last)| overlap(**it, range) && is_read(last));
            prop_assert_eq!(left, None, "{:?}: it was active a moment ago", op);
        }
        if let Some(set) = set {
            prop_assert!(!self.maps.pools.values().any(|pool| pool.sources() == set), "{op:?}: it is active");
            prop_assert!(
                !self.left_sources.get(&set).is_some_and(is_read),
                "{op:?}: it was active a moment ago"
            );
        }
        Ok(())
    }

    fn start_again(&mut self) {
        self.now += Duration::from_millis(50);
        self.state = State::new(self.spec.clone(), self.admin.clone(), RoleMemory::default(), self.now);
        self.state.set_room(ROOM);
        self.grace_period.pending = None;
        self.links();
        self.state.adopt(&self.maps, self.now);
    }

    fn links(&mut self) {
        self.state.links(self.is_plugged.then(eth0).into_iter().collect(), [].into());
    }

    fn make(&mut self, change: &Change) {
        let named = |s: &u8, b: &u8| BackendName::new(&format!("s{s}"), &format!("b{b}"));
        match change {
            Change::ToggleService(s) => self.toggle_service(*s),
            Change::ToggleBackend(s, b) => self.toggle_backend(*s, *b),
            Change::MoveBackend(s, b, to) => self.on_backend(*s, *b, |it| {
                it.address.set_port(8080 + u16::from(*to));
            }),
            Change::Admin(s, b, to) => drop(self.admin.insert(named(s, b), *to)),
            Change::Schedule(s, to) => self.on_service(*s, |it| it.scheduler = *to),
            Change::Weight(s, b, to) => self.on_backend(*s, *b, |it| it.weight = *to),
            Change::Backup(s, b, to) => self.on_backend(*s, *b, |it| it.backup = *to),
            Change::Health(s, b, to) => {
                let probed = probed(&self.state, &named(s, b).to_string(), *to);
                self.state.probed(probed, self.now);
            }
            Change::SwapListens(a, b) => self.swap_listens(*a, *b),
            Change::SwapServiceNames(a, b) => self.swap_service_names(*a, *b),
            Change::SwapBackendNames(s, a, b) => self.on_service(*s, |service| {
                let [a, b] = [a, b].map(|it| format!("b{it}"));
                for backend in &mut service.backends {
                    if backend.name == a {
                        backend.name.clone_from(&b);
                    } else if backend.name == b {
                        backend.name.clone_from(&a);
                    }
                }
            }),
            Change::SwitchProtocol(s) => self.on_service(*s, |it| {
                it.protocol = match it.protocol {
                    Protocol::Tcp => Protocol::Udp,
                    Protocol::Udp => Protocol::Tcp,
                }
            }),
            Change::SwitchMode(s) => self.on_service(*s, |it| {
                it.mode = match it.mode {
                    Mode::FullNat => Mode::Nat,
                    Mode::Nat => Mode::FullNat,
                }
            }),
            Change::ShareFlows(to) => {
                (0..SERVICES).for_each(|s| self.on_service(s, |it| it.share_flows = ShareFlows::All));
                self.on_service(0, |it| it.share_flows = *to);
            }
            Change::Unplug => self.is_plugged = false,
            Change::Plug => self.is_plugged = true,
            Change::LoseHop(b, to) => {
                let mut seen = hops(&self.spec);
                let lost = seen.keys().nth(usize::from(*b)).copied();
                seen.extend(lost.map(|address| (address, to.clone())));
                self.state.hops(seen);
            }
            Change::FindHops => self.state.hops(hops(&self.spec)),
            Change::RoutingChanged => self.state.routing_changed(),
            Change::Wait(ms) => self.now += Duration::from_millis(*ms),
            Change::GracePeriodEnds => {
                if let Some(round) = self.grace_period.pending.take() {
                    self.grace_period.ended = self.grace_period.begun;
                    self.state.grace_period_ended(round);
                }
            }
            Change::CrashAfter(steps) => self.crash_after = Some(*steps),
        }
        self.links();
        self.state.set_intent(self.spec.clone(), self.admin.clone(), self.now);
    }

    fn toggle_service(&mut self, s: u8) {
        let services = &mut self.spec.services;
        match services.iter().position(|it| it.name == format!("s{s}")) {
            Some(at) => drop(services.remove(at)),
            // Another service may have its addresses now: no two services share a listen address.
            None if services.iter().any(|it| it.listen.iter().any(|at| a_service(s).listen.contains(at))) => {
            }
            None => services.push(a_service(s).into()),
        }
    }

    fn toggle_backend(&mut self, s: u8, b: u8) {
        self.on_service(s, |service| {
            match service.backends.iter().position(|it| it.name == format!("b{b}")) {
                Some(at) => drop(service.backends.remove(at)),
                // Another backend may have its address now: a service has no address twice.
                None if service.backends.iter().any(|it| it.address.ip() == a_backend(b).address.ip()) => {}
                None => service.backends.push(a_backend(b)),
            }
        });
    }

    fn swap_listens(&mut self, a: u8, b: u8) {
        let position = |s| self.spec.services.iter().position(|it| it.name == format!("s{s}"));
        let (Some(a), Some(b)) = (position(a), position(b)) else { return };
        let listen = self.spec.services[a].listen.clone();
        self.spec.services[a].listen = std::mem::replace(&mut self.spec.services[b].listen, listen);
    }

    fn swap_service_names(&mut self, a: u8, b: u8) {
        let position = |s| self.spec.services.iter().position(|it| it.name == format!("s{s}"));
        let (Some(a), Some(b)) = (position(a), position(b)) else { return };
        let name = self.spec.services[a].name.clone();
        self.spec.services[a].name = std::mem::replace(&mut self.spec.services[b].name, name);
    }

    fn on_service(&mut self, s: u8, change: impl FnOnce(&mut Service)) {
        if let Some(service) = self.spec.services.iter_mut().find(|it| it.name == format!("s{s}")) {
            change(service);
        }
    }

    fn on_backend(&mut self, s: u8, b: u8, change: impl FnOnce(&mut crate::spec::Backend)) {
        self.on_service(s, |service| {
            if let Some(backend) = service.backends.iter_mut().find(|it| it.name == format!("b{b}")) {
                change(backend);
            }
        });
    }
}

/// Three listen addresses, two of which share an address; IPv4 and IPv6.
fn a_service(s: u8) -> Service {
    let protocol = if s == 1 { Protocol::Udp } else { Protocol::Tcp };
    let mut it = service(&format!("s{s}"), protocol, &format!("192.0.2.{}:8{s}", s / 2), Vec::new());
    it.listen.push(format!("[2001:db8::{s}]:80").parse().unwrap());
    it.sources.push("fd00::1".parse().unwrap());
    it.backends = (0..BACKENDS).map(a_backend).collect();
    it
}

fn a_backend(b: u8) -> crate::spec::Backend {
    let address = if b.is_multiple_of(2) {
        format!("10.0.0.{}:8080", b + 1)
    } else {
        format!("[fd00::{}]:8080", b + 1)
    };
    backend(&format!("b{b}"), &address)
}
