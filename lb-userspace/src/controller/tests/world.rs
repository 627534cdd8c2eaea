//! A controller with a fake datapath, host and clock.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::bail;
use lb_common::{backend::BackendId, flow::State as FlowState, net::Protocol, settings::PortPool};
use tokio::sync::watch;

use crate::{
    announced_addresses::Placed,
    cluster::{self, Document, copy::Copy},
    controller::{
        Controller, Host, Start, Watched,
        fixture::{backend, eth0, hops, name, probed, service, socket, spec},
        pace::Pace,
        roles::RoleMemory,
    },
    datapath::{Attached, Capacity, Flow, memory::Memory, shapes::Sizes},
    event::{Answer, Event, Health, Path, Reply, Request, Since, Target},
    group::{status::GroupStatus, view::View},
    problem::{Problem, ProblemKind},
    spec::{
        self, AdminState, BackendName, BackendPatch, Limits, NewBackend, Service, Services, Spec,
        overlay::Overlay,
    },
    view::{self, FlowQuery},
};

/// The rest of a file with the services of a cluster.
const OF_THE_NODE: &str = "\n[[interface]]\nname = 'eth0'\n";
/// The ephemeral ports when the maps were created.
const LOCAL_PORTS: (u16, u16) = (32_768, 60_999);

/// The clock moves only when a test waits.
pub struct World {
    pub controller: Controller<Memory, FakeHost>,
    pub targets: watch::Receiver<Vec<Target>>,
    pub hops: watch::Receiver<BTreeSet<Path>>,
    /// The grace periods that begin do not end.
    pub is_a_packet_stalled: bool,
    /// Changes wait for others. Otherwise each is applied at once, as after a pause.
    pub is_paced: bool,
    grace_periods: watch::Receiver<u64>,
    now: Instant,
}

#[derive(Debug)]
pub struct FakeHost {
    pub file: Result<Spec, Problem>,
    pub saved: Vec<Overlay>,
    pub saved_roles: RoleMemory,
    /// What was saved of the drain of this node.
    pub is_drained: bool,
    /// The program is attached to no interface.
    pub is_detached: bool,
    /// What was written to the track file.
    pub tracked: Vec<i16>,
    /// What is on the device of `[announce]`.
    pub placed: BTreeSet<Placed>,
    /// `+` an address that was added, `-` one that was taken off.
    pub placements: Vec<String>,
    /// Addresses cannot be changed.
    pub is_read_only: bool,
    /// Saving fails.
    pub is_full: bool,
    pub addresses: BTreeSet<IpAddr>,
    pub group: Option<Arc<GroupStatus>>,
    /// What the exchange of flows was told last.
    pub shared: Option<View>,
    /// What the exchange with etcd says.
    pub cluster: Option<Arc<cluster::Status>>,
    /// What is to be written to etcd.
    pub writes: Vec<cluster::Write>,
    /// What was saved of the cluster.
    pub copy: Copy,
    /// What the exchange with etcd was told last.
    pub report: cluster::Report,
    pub local_ports: (u16, u16),
    /// The reason why interfaces and pins cannot be restored.
    pub pins_failure: Option<&'static str>,
}

impl Host for FakeHost {
    fn read_spec(&mut self, document: Option<&Document>) -> Result<Spec, Problem> {
        let file = self.file.clone()?;
        match document {
            Some(document) => self.combine(Services { name: "document", text: &document.text }),
            None => Ok(file),
        }
    }

    fn keep_file(&mut self) {}

    fn combine(&mut self, services: Services<'_>) -> Result<Spec, Problem> {
        let shared = spec::parse(services.name, &format!("{}{OF_THE_NODE}", services.text));
        let shared = shared.map_err(|mistakes| Problem {
            kind: ProblemKind::InvalidConfiguration,
            detail: format!("{} has errors and was not applied", services.name),
            mistakes: mistakes.each(),
        })?;
        Ok(Spec { services: shared.services, ..self.file.clone()? })
    }

    fn idle_services(&mut self, in_force: &Spec) -> Vec<String> {
        let own = self.file.iter().flat_map(|file| &file.services);
        own.filter(|it| !in_force.services.contains(it)).map(|it| it.name.clone()).collect()
    }

    fn cluster(&self) -> Option<Arc<cluster::Status>> {
        self.cluster.clone()
    }

    fn write(&mut self, write: cluster::Write) -> Result<(), Problem> {
        self.writes.push(write);
        Ok(())
    }

    fn report(&mut self, report: cluster::Report) {
        self.report = report;
    }

    fn save_copy(&mut self, copy: &Copy) -> anyhow::Result<()> {
        if self.is_full {
            bail!("no space left on the disk");
        }
        self.copy = copy.clone();
        Ok(())
    }

    fn save_overlay(&mut self, overlay: &Overlay) -> anyhow::Result<()> {
        if self.is_full {
            bail!("no space left on the disk");
        }
        self.saved.push(overlay.clone());
        Ok(())
    }

    fn save_roles(&mut self, memory: &RoleMemory) -> anyhow::Result<()> {
        if self.is_full {
            bail!("no space left on the disk");
        }
        self.saved_roles = memory.clone();
        Ok(())
    }

    fn save_drained(&mut self, is_drained: bool) -> anyhow::Result<()> {
        if self.is_full {
            bail!("no space left on the disk");
        }
        self.is_drained = is_drained;
        Ok(())
    }

    fn group(&self) -> Option<Arc<GroupStatus>> {
        self.group.clone()
    }

    fn share(&mut self, view: View) {
        self.shared = Some(view);
    }

    fn track(&mut self, value: i16) -> anyhow::Result<()> {
        if self.is_full {
            bail!("no space left on the disk");
        }
        self.tracked.push(value);
        Ok(())
    }

    fn placed(&mut self) -> anyhow::Result<Vec<Placed>> {
        Ok(self.placed.iter().cloned().collect())
    }

    fn announce(&mut self, address: IpAddr) -> anyhow::Result<()> {
        if self.is_read_only {
            bail!("cannot add {address} to lo: not permitted");
        }
        self.placed.insert(placed(address, Owner::Xlb));
        self.placements.push(format!("+{address}"));
        self.addresses.insert(address);
        Ok(())
    }

    fn withdraw(&mut self, address: &Placed) -> anyhow::Result<()> {
        if self.is_read_only {
            bail!("cannot take {} off: not permitted", address.net.addr());
        }
        assert!(address.is_ours && self.placed.remove(address), "not an address of xlb: {address:?}");
        self.addresses.remove(&address.net.addr());
        self.placements.push(format!("-{}", address.net.addr()));
        Ok(())
    }

    fn attached(&mut self) -> anyhow::Result<Vec<Attached>> {
        match self.pins_failure {
            Some(failure) => bail!(failure),
            None if self.is_detached => Ok(Vec::new()),
            None => Ok(vec![eth0()]),
        }
    }

    fn addresses(&mut self) -> anyhow::Result<BTreeSet<IpAddr>> {
        Ok(self.addresses.clone())
    }

    fn local_ports(&mut self) -> anyhow::Result<(u16, u16)> {
        Ok(self.local_ports)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Xlb,
    Operator,
}

/// An address on the device.
pub fn placed(address: IpAddr, owner: Owner) -> Placed {
    Placed { net: address.into(), interface: 1, is_on_device: true, is_ours: owner == Owner::Xlb }
}

impl World {
    /// All backends are reachable, and none was probed yet.
    pub fn unprobed(services: Vec<Service>) -> Self {
        Self::unprobed_of(spec(services))
    }

    /// The same with another file.
    pub fn unprobed_of(file: Spec) -> Self {
        let host = FakeHost {
            file: Ok(file),
            saved: Vec::new(),
            saved_roles: RoleMemory::default(),
            is_drained: false,
            is_detached: false,
            tracked: Vec::new(),
            placed: BTreeSet::new(),
            placements: Vec::new(),
            is_read_only: false,
            is_full: false,
            group: None,
            shared: None,
            cluster: None,
            writes: Vec::new(),
            copy: Copy::default(),
            report: cluster::Report::default(),
            pins_failure: None,
            addresses: [].into(),
            local_ports: LOCAL_PORTS,
        };
        let mut world = Self::start(Memory::default(), host, Overlay::default(), Instant::now());
        world.absorb(Event::Hops(hops(world.spec())));
        world
    }

    /// All backends are reachable and up.
    pub fn all_up(services: Vec<Service>) -> Self {
        let mut world = Self::unprobed(services);
        for target in world.controller.state.targets() {
            world.probed(&target.backend.to_string(), Health::Up);
        }
        world.settle();
        world
    }

    fn start(datapath: Memory, host: FakeHost, overlay: Overlay, now: Instant) -> Self {
        let (to_prober, targets) = watch::channel(Vec::new());
        let (to_netlink, hops) = watch::channel(BTreeSet::new());
        let Sizes { v4, v6, room } = Sizes::of(&Limits::default());
        let start = Start {
            config: "/etc/xlb/xlb.toml".into(),
            spec: host.file.clone().unwrap(),
            overlay,
            copy: Some(host.copy.clone()),
            roles: host.saved_roles.clone(),
            is_drained: host.is_drained,
            capacity: Capacity {
                own_ports: PortPool::around(LOCAL_PORTS.0, LOCAL_PORTS.1),
                flows: v4.flows(),
                flows_ipv6: v6.flows(),
                half_open_flows: v4.half_open,
                room,
                ports: PortPool::around(LOCAL_PORTS.0, LOCAL_PORTS.1),
                map_memory_bytes: 0,
            },
            warnings: Vec::new(),
            since: Since { instant: now, time: SystemTime::UNIX_EPOCH },
        };
        let (interfaces, _) = watch::channel(Vec::new());
        let (begun, grace_periods) = watch::channel(0);
        let watched = Watched { targets: to_prober, hops: to_netlink, interfaces, grace_periods: begun };
        let mut controller = Controller::adopt(datapath, host, watched, start, now).unwrap();
        controller.turn(now);
        Self { controller, targets, hops, is_a_packet_stalled: false, is_paced: false, grace_periods, now }
    }

    /// Like kill -9 and a new daemon, which takes over the maps and the saved overlay. Netlink has not reported
    /// yet.
    pub fn restart(&mut self) {
        let datapath = Memory { log: Vec::new(), ..self.maps().clone() };
        let host = self.host();
        let overlay = host.saved.last().cloned().unwrap_or_default();
        let restarted = FakeHost {
            file: host.file.clone(),
            saved: vec![overlay.clone()],
            saved_roles: host.saved_roles.clone(),
            is_drained: host.is_drained,
            is_detached: false,
            tracked: Vec::new(),
            placed: host.placed.clone(),
            placements: Vec::new(),
            is_read_only: false,
            group: host.group.clone(),
            shared: None,
            cluster: host.cluster.clone(),
            writes: Vec::new(),
            copy: host.copy.clone(),
            report: cluster::Report::default(),
            is_full: false,
            pins_failure: None,
            addresses: host.addresses.clone(),
            local_ports: host.local_ports,
        };
        *self = Self::start(datapath, restarted, overlay, self.now + Duration::from_millis(100));
    }

    pub fn maps(&mut self) -> &mut Memory {
        &mut self.controller.datapath
    }

    pub fn host(&mut self) -> &mut FakeHost {
        &mut self.controller.host
    }

    pub fn spec(&self) -> &Spec {
        self.controller.state.spec()
    }

    pub fn absorb(&mut self, event: Event) {
        self.controller.absorb(event, self.now);
        self.turn();
    }

    /// A grace period that begins ends at once, unless a packet is stalled.
    pub fn turn(&mut self) {
        if !self.is_paced {
            self.controller.pace = Pace::new(self.now);
            self.controller.readiness.next = self.now;
        }
        self.controller.turn(self.now);
        if !self.is_a_packet_stalled && self.grace_periods.has_changed().unwrap() {
            let round = *self.grace_periods.borrow_and_update();
            self.controller.absorb(Event::GracePeriodEnded(round), self.now);
            self.controller.turn(self.now);
        }
        // What a command leaves to the next turn is done there. The loop must not turn for ever without pause.
        let is_due = |it: &Self| !it.controller.is_busy() && it.controller.due(it.now) <= it.now;
        for _ in 0..3 {
            if is_due(self) {
                self.controller.turn(self.now);
            }
        }
        assert!(!is_due(self), "the loop turns without pause");
    }

    pub const fn now(&self) -> Instant {
        self.now
    }

    pub fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.turn();
        self.settle();
    }

    /// Time passes, then one turn.
    pub fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.turn();
    }

    /// Runs until all walks and scrapes have ended.
    pub fn settle(&mut self) {
        while self.controller.is_busy() {
            self.turn();
        }
    }

    pub fn probed(&mut self, backend: &str, health: Health) {
        self.absorb(Event::Probed(probed(&self.controller.state, backend, health)));
    }

    pub fn send<T>(&mut self, request: impl FnOnce(Reply<T>) -> Request) -> Answer<T> {
        let (reply, answer) = Reply::channel();
        self.controller.absorb(Event::Request(request(reply)), self.now);
        answer
    }

    pub fn ask<T>(&mut self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Problem> {
        let mut answer = self.send(request);
        self.turn();
        self.settle();
        self.turn();
        answer.try_recv().expect("every request is answered")
    }

    pub fn list(&mut self, query: FlowQuery) -> Result<Vec<view::Flow>, Problem> {
        self.ask(|reply| Request::Flows { query, reply })
    }

    pub fn remove_flows(&mut self, query: FlowQuery) -> Result<u64, Problem> {
        self.ask(|reply| Request::RemoveFlows { query, reply }).map(|it| it.removed)
    }

    pub fn status(&mut self) -> view::Status {
        self.ask(Request::Status).unwrap()
    }

    pub fn new_flows(&mut self) -> u64 {
        self.ask(Request::Stats).unwrap()[0].new_flows_total
    }

    pub fn set(&mut self, backend: &str, state: AdminState) {
        self.ask(patch(backend, state)).unwrap();
    }

    /// The names of the backends that get new flows of the first service, in order.
    pub fn serving(&self) -> Vec<String> {
        let datapath = &self.controller.datapath;
        let first = datapath.in_force().into_values().next().unwrap_or_default();
        let name = |id: &BackendId| {
            let backend = datapath.maps.backend(*id).unwrap();
            assert_ne!(backend.accepts, 0);
            datapath.maps.backend_names[&backend.counters].backend.clone()
        };
        first.iter().map(name).collect()
    }

    /// The same, each once, sorted by name.
    pub fn offered(&self) -> Vec<String> {
        self.serving().into_iter().collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub fn id(&self, backend: &str) -> Option<BackendId> {
        let maps = &self.controller.datapath.maps;
        let known = |it: &&lb_common::backend::Backend| maps.backend_names[&it.counters] == name(backend);
        maps.backends.values().find(known).map(|it| it.id)
    }

    pub fn add_flows(&mut self, backend_id: BackendId, count: u16) {
        let flow = |n: u16| Flow {
            protocol: Protocol::Tcp,
            client: (IpAddr::from([198, 51, 100 + (n >> 8) as u8, n as u8]), 40_000).into(),
            listen: socket("192.0.2.10:80"),
            backend: socket("10.0.0.11:8080"),
            source: socket("10.0.0.1:1024"),
            backend_id,
            state: FlowState::ESTABLISHED,
            idle: Duration::ZERO,
        };
        self.maps().records.extend((0..count).map(flow).map(Some));
    }
}

pub fn add(backend: BackendName, body: NewBackend) -> impl FnOnce(Reply<view::Backend>) -> Request {
    move |reply| Request::AddBackend { backend, body, reply }
}

pub fn remove(backend: BackendName) -> impl FnOnce(Reply<()>) -> Request {
    move |reply| Request::RemoveBackend { backend, reply }
}

pub fn change(
    backend: BackendName,
    body: BackendPatch,
) -> impl FnOnce(Reply<Option<view::Backend>>) -> Request {
    move |reply| Request::PatchBackend { backend, body, reply }
}

pub fn patch(backend: &str, state: AdminState) -> impl FnOnce(Reply<Option<view::Backend>>) -> Request {
    change(name(backend), BackendPatch { admin_state: Some(state), ..BackendPatch::default() })
}

pub fn dns() -> Service {
    let backends = vec![backend("dns-1", "10.0.0.21:53"), backend("dns-2", "10.0.0.22:53")];
    service("dns", Protocol::Udp, "192.0.2.53:53", backends)
}
