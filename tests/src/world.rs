//! What a row runs in, as plain values: services, backends, what the host knows of the network, limits, the clock.
//!
//! ```text
//!   clients 198.51.100.0/24 ─┐              ┌─ backends 10.0.0.0/24
//!           2001:db8:51::/64 ├─ FRONT  BACK ┤           fd00::/64
//!   far     203.0.113.0/24  ─┘  via .1      └─ (and a client, 10.0.0.77)      SIDE: 172.16.0.0/24, not attached
//! ```
//!
//! Both engines load a World: the host engine looks up its routes, the kernel engine installs the same routes in a
//! network namespace.

mod maps;
pub mod network;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    backend::BackendId,
    clock::Ticks,
    flow::{RECORDS_PER_FLOW, Shape},
    net::Protocol,
    pool::Picker,
    quiet::Quiet,
    service::{Mode, Reject},
    settings::PortPool,
};

pub use self::maps::{HASH_KEYS, KEYS, LINES, Maps};
use self::network::{BACK, INTERFACES, Neighbour, mac_of_interface, standard_neighbours};

/// The backend in the first slot of the standard world.
pub const WEB_1: &str = "web-1";
/// The backend in the second slot.
pub const WEB_2: &str = "web-2";
/// The backend in the third slot.
pub const WEB_3: &str = "web-3";
/// These three.
pub const WEBS: [&str; 3] = [WEB_1, WEB_2, WEB_3];

/// Everything besides the packet that a verdict depends on.
#[derive(Clone, Debug)]
#[must_use]
pub struct World {
    /// Their positions are the numbers of pools and counters.
    pub services: Vec<Service>,
    /// The host's neighbour entries.
    pub neighbours: Vec<Neighbour>,
    /// The Ethernet addresses of the host's own interfaces, by index.
    pub own_macs: BTreeMap<u32, [u8; 6]>,
    /// The shape of both families' flow tables.
    pub shape: Shape,
    /// Source ports of full-nat flows.
    pub ports: PortPool,
    /// Are packets of no known flow dropped without an answer?
    pub quiet: Quiet,
    /// Does the daemon read neighbour requests?
    pub daemon_listens: bool,
    /// Raised when routes or neighbours change, so that flows look up their client's hop again.
    pub hop_generation: u32,
    /// The stopped clock.
    pub clock: Ticks,
    /// The MTU of every interface.
    pub mtu: u32,
    /// The id of the next backend.
    pub next_id: BackendId,
    /// A missing map value, which only the memory engine can simulate.
    pub missing: Option<Element>,
}

/// What the program looks up in its maps and always finds, in a sound installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Any pool's word.
    Pool,
    /// Any slot.
    Slots,
    /// The members of any pool.
    Members,
    /// Any set of sources.
    Sources,
    /// Any round-robin word.
    Turn,
    /// Any place in `BACKENDS`.
    Backend,
    /// Any interface.
    Interface,
    /// Any bucket of records.
    Bucket,
    /// Any line of the reply index.
    Line,
    /// The CPU's own scratch.
    Scratch,
    /// The number of half-open flows.
    HalfOpen,
    /// The account of answers.
    Answers,
    /// When any flow that is not known was first seen.
    FirstSeen,
}

/// A service: of one protocol and one family.
#[derive(Clone, Debug)]
pub struct Service {
    /// The endpoints where it listens. Each is a key of its own; all have one pool.
    pub listen: Vec<SocketAddr>,
    /// The protocol of all endpoints.
    pub protocol: Protocol,
    /// What backends see of clients.
    pub mode: Mode,
    /// What happens to packets without a flow or a backend.
    pub reject: Reject,
    /// What backends see instead of clients, with full-nat.
    pub sources: Vec<IpAddr>,
    /// How a slot is chosen for a new flow.
    pub picker: Picker,
    /// Does a client that is refused get another backend?
    pub retries: bool,
    /// Are backends ejected that fail, up to half of them?
    pub ejects: bool,
    /// Its backends, in the order of their slots. One that does not accept new flows has no slot.
    pub backends: Vec<Backend>,
    /// The slots, as positions in `backends`, if a backend has not exactly one slot. At most 32.
    pub slots: Option<Vec<usize>>,
    /// Can another node compute the backends of its flows? The computed pool has all backends.
    pub computes: bool,
    /// The members, as positions in `backends`, if they are not all that accept new flows.
    pub members: Option<Vec<usize>>,
}

/// A backend, and the controller's state of it.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The name that rows use.
    pub name: &'static str,
    /// 0: its flows were removed.
    pub id: BackendId,
    /// Where it listens, and where its replies come from.
    pub address: SocketAddr,
    /// Does it get new flows?
    pub accepts: bool,
    /// Its weight, for pickers that compare loads.
    pub weight: u32,
    /// Its maximum number of flows. 0: no limit.
    pub max_flows: u32,
    /// The MAC of the next hop towards it.
    pub mac: [u8; 6],
    /// 0: its next hop is not resolved.
    pub interface: u32,
}

/// The combination of family, protocol and mode that a row runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The family of clients and backends.
    pub ip: Family,
    /// The protocol of the one service.
    pub protocol: Protocol,
    /// The mode of the one service.
    pub mode: Mode,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Clients in 198.51.100.0/24, backends in 10.0.0.0/24.
    V4,
    /// Clients in 2001:db8:51::/64, backends in fd00::/64.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Parses the text of this family.
    ///
    /// # Panics
    /// If it is no address: the row is wrong.
    pub fn address(self, v4: &str, v6: &str) -> IpAddr {
        let text = match self {
            Self::V4 => v4,
            Self::V6 => v6,
        };
        text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
    }

    /// A client on the front network, by its number.
    pub fn client(self, number: u8) -> IpAddr {
        self.address(&format!("198.51.100.{number}"), &format!("2001:db8:51::{number}"))
    }

    /// A client behind the front network's gateway.
    pub fn far_client(self) -> IpAddr {
        self.address("203.0.113.7", "2001:db8:113::7")
    }

    /// What services listen on.
    pub fn listen(self) -> SocketAddr {
        SocketAddr::new(self.address("192.0.2.10", "2001:db8::10"), 80)
    }

    /// What backends see of us with full-nat.
    pub fn source(self) -> IpAddr {
        self.address("10.0.0.1", "fd00::1")
    }

    /// A station on the back network, by its number.
    pub fn inside(self, number: u8) -> IpAddr {
        self.address(&format!("10.0.0.{number}"), &format!("fd00::{number}"))
    }
}

impl Kind {
    /// A kind, for rows that do not run with all of them.
    pub const fn new(ip: Family, protocol: Protocol, mode: Mode) -> Self {
        Self { ip, protocol, mode }
    }

    /// All kinds.
    pub fn all() -> Vec<Self> {
        let mut kinds = Vec::new();
        for ip in Family::ALL {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for mode in [Mode::FullNat, Mode::Nat] {
                    kinds.push(Self { ip, protocol, mode });
                }
            }
        }
        kinds
    }

    /// Both families over TCP, full-nat.
    pub fn tcp() -> [Self; 2] {
        Family::ALL.map(|ip| Self::new(ip, Protocol::Tcp, Mode::FullNat))
    }

    /// Both families over UDP, full-nat.
    pub fn udp() -> [Self; 2] {
        Family::ALL.map(|ip| Self::new(ip, Protocol::Udp, Mode::FullNat))
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.ip, self.protocol, self.mode)
    }
}

impl World {
    /// One service with three backends behind BACK, a small table, and a host that has all neighbour entries.
    pub fn new(kind: Kind) -> Self {
        let mut world = Self {
            services: Vec::new(),
            neighbours: standard_neighbours(),
            own_macs: INTERFACES.map(|(_, index)| (index, mac_of_interface(index))).into(),
            shape: Shape { buckets: 16, lines: 16, half_open: 64, half_open_batch: 2 },
            ports: PortPool::around(32_768, 60_999),
            quiet: Quiet::No,
            daemon_listens: true,
            hop_generation: 1,
            // The clock wraps soon: ages must be right across that.
            clock: Ticks(u32::MAX).earlier_by(Ticks::from_seconds(60)),
            mtu: 1500,
            next_id: BackendId::FIRST,
            missing: None,
        };
        world.services.push(Service {
            listen: vec![kind.ip.listen()],
            protocol: kind.protocol,
            mode: kind.mode,
            reject: Reject::Reset,
            sources: vec![kind.ip.source()],
            picker: Picker::Turn,
            retries: false,
            ejects: false,
            backends: Vec::new(),
            slots: None,
            computes: false,
            members: None,
        });
        world
            .backend(WEB_1, kind.ip.inside(11))
            .backend(WEB_2, kind.ip.inside(12))
            .backend(WEB_3, kind.ip.inside(13))
    }

    /// Adds a backend to the last service. It listens on 8080.
    pub fn backend(mut self, name: &'static str, address: IpAddr) -> Self {
        let (id, mac) = (self.next_id, network::mac_of(address));
        self.next_id = self.next_id.following();
        let backend = Backend {
            name,
            id,
            address: SocketAddr::new(address, 8080),
            accepts: true,
            weight: 100,
            max_flows: 0,
            mac,
            interface: BACK,
        };
        self.services.last_mut().into_iter().for_each(|service| service.backends.push(backend.clone()));
        self
    }

    /// The world with a change.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The world with the first backend alone.
    pub fn with_one_backend(self) -> Self {
        self.with(|world| world.services[0].backends.truncate(1))
    }

    /// The world with a table for this many flows, and no limit of half-open ones.
    pub fn with_flows(self, flows: u32) -> Self {
        self.with(|world| world.shape = Shape::for_flows(flows, flows * RECORDS_PER_FLOW))
    }

    /// The world with a table of this many buckets, and as many lines in the reply index.
    pub fn with_buckets(self, buckets: u32) -> Self {
        self.with(|world| (world.shape.buckets, world.shape.lines) = (buckets, buckets))
    }

    /// The world with one NIC for clients and backends.
    pub fn with_one_interface(self) -> Self {
        self.with(|world| {
            world
                .services
                .iter_mut()
                .flat_map(|it| &mut it.backends)
                .for_each(|it| it.interface = network::FRONT)
        })
    }

    /// A backend by its name.
    ///
    /// # Panics
    /// If there is none: the row is wrong.
    pub fn find(&self, name: &str) -> &Backend {
        let mut backends = self.services.iter().flat_map(|service| &service.backends);
        backends.find(|backend| backend.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// A backend by its name, to be changed.
    ///
    /// # Panics
    /// If there is none: the row is wrong.
    pub fn find_mut(&mut self, name: &str) -> &mut Backend {
        let mut backends = self.services.iter_mut().flat_map(|service| &mut service.backends);
        backends.find(|backend| backend.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// The backend that listens at an endpoint.
    pub fn backend_at(&self, address: SocketAddr) -> Option<&'static str> {
        let mut backends = self.services.iter().flat_map(|service| &service.backends);
        backends.find(|backend| backend.address == address).map(|backend| backend.name)
    }

    /// The backend gets no new flows: it is down or drained.
    pub fn rest(&mut self, name: &str) {
        self.find_mut(name).accepts = false;
    }

    /// The backend loses its flows and gets another id, as after maint.
    pub fn renew(&mut self, name: &str) {
        let id = self.next_id;
        self.next_id = self.next_id.following();
        self.find_mut(name).id = id;
    }

    /// The service that listens at an endpoint.
    pub fn service(&self, protocol: Protocol, listen: SocketAddr) -> Option<&Service> {
        self.services.iter().find(|it| it.protocol == protocol && it.listen.contains(&listen))
    }
}
