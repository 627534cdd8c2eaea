//! Which namespaces there are, and how they are wired.
//!
//! ```text
//!   TwoNics   client ───── xlb ───── switch ─┬─ web-1
//!                                            └─ web-2 ..
//!   OneNic    client ─┐
//!                xlb ─┴ switch ─┬─ web-1
//!                               └─ web-2 ..                    one Ethernet: what xlb forwards leaves where it came in
//!   Pair      client ── edge ─┬─ lb-1 ─┬─ switch ─┬─ web-1
//!                             └─ lb-2 ─┘          └─ web-2 ..  the router's ports to the balancers are on a bridge, too
//!   Trio      client ── edge ─┬─ lb-1, lb-2, lb-3               what the router sends to a balancer comes back to the router
//!                             └─ switch ─┬─ web-1
//!                                        └─ web-2 ..
//!   Routers   client ── edge ── xlb ── core ─┬─ web-1
//!                                            └─ web-2 ..      routers on both sides, for path MTU and next hops
//! ```
//!
//! Addresses are in [`address`]. `switch` and `core` hold a bridge; in `core`, and in `edge` of a pair or trio, it has an address.

use anyhow::Result;
use lb_common::service::Mode;

use super::{
    address::{self, Pair},
    link,
    namespace::Namespace,
};

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    /// Part of the namespaces' names. Without hyphens.
    pub tag: &'static str,
    /// Which links there are, and which routers between them.
    pub shape: Shape,
    /// How the service will be configured; nat needs routes in the backends, full-nat nothing.
    pub mode: Mode,
    /// `web-1` to `web-N`.
    pub backends: u8,
    /// Addresses of the client.
    pub clients: u8,
}

/// How it is wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Clients on one link of xlb, backends on the other.
    TwoNics,
    /// Clients, backends and xlb on one Ethernet.
    OneNic,
    /// Two balancers, each between the clients' router and the switch of the backends. None has the service's addresses.
    Pair,
    /// Three balancers at a router, between clients and backends. None has the service's addresses.
    Trio,
    /// Clients and backends each behind a router.
    Routers,
}

impl Shape {
    /// The names of the balancers, and of the ports that they are plugged into, if there are several.
    pub const fn balancers(self) -> &'static [&'static str] {
        match self {
            Self::TwoNics | Self::OneNic | Self::Routers => &[],
            Self::Pair => &["lb-1", "lb-2"],
            Self::Trio => &["lb-1", "lb-2", "lb-3"],
        }
    }
}

impl Topology {
    /// Two client addresses, three backends, full-nat.
    #[must_use]
    pub const fn new(tag: &'static str, shape: Shape) -> Self {
        Self { tag, shape, mode: Mode::FullNat, backends: 3, clients: 2 }
    }

    /// The same for another mode.
    #[must_use]
    pub const fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The same with this many backends.
    #[must_use]
    pub const fn backends(self, backends: u8) -> Self {
        Self { backends, ..self }
    }

    /// The same with this many client addresses.
    #[must_use]
    pub const fn clients(self, clients: u8) -> Self {
        Self { clients, ..self }
    }
}

/// A host behind the load balancer.
#[derive(Clone, Debug)]
pub struct Backend {
    /// `web-1` and so on.
    pub name: String,
    /// Its only link is `eth0`.
    pub namespace: Namespace,
    /// The addresses of `eth0`.
    pub address: Pair,
}

/// Everything that was built.
pub struct Network {
    /// All clients: one host with several addresses.
    pub client: Namespace,
    /// The addresses of `client`.
    pub clients: Vec<Pair>,
    /// The router between clients and xlb. `None`: they share a link.
    pub edge: Option<Namespace>,
    /// Where the daemon runs. The host routes by itself, too.
    pub xlb: Namespace,
    /// The balancers after the first one, which is `xlb`.
    pub others: Vec<Namespace>,
    /// Interfaces of `xlb` on which it serves.
    pub interfaces: Vec<&'static str>,
    /// The switch, or the core router.
    pub switch: Namespace,
    /// `web-1` first.
    pub backends: Vec<Backend>,
}

impl Network {
    /// Builds it. Names of namespaces begin with `lab`.
    pub fn build(lab: &str, topology: &Topology) -> Result<Self> {
        let network = Self::namespaces(lab, topology)?;
        match topology.shape {
            Shape::TwoNics => network.wire_two_nics(),
            Shape::OneNic => network.wire_one_nic(),
            Shape::Pair => network.wire_pair(),
            Shape::Trio => network.wire_trio(),
            Shape::Routers => network.wire_routers(),
        }?;
        network.wire_backends(topology)?;
        Ok(network)
    }

    fn namespaces(lab: &str, topology: &Topology) -> Result<Self> {
        let create = |role: &str| Namespace::create(format!("{lab}-{role}"));
        let router = |role: &str| create(role).and_then(route_packets);
        let shape = topology.shape;
        let far = shape == Shape::Routers;
        let has_edge = matches!(shape, Shape::Routers | Shape::Pair | Shape::Trio);
        let client = if has_edge { address::far_client } else { address::client };
        let has_far_backends = matches!(shape, Shape::Routers | Shape::Trio);
        let backend = if has_far_backends { address::far_backend } else { address::backend };
        let names = shape.balancers();
        let balancer = |name: &&str| router(name).and_then(keep_addresses);

        let mut backends = Vec::new();
        for n in 1..=topology.backends {
            let name = format!("web-{n}");
            let namespace = create(&name)?;
            // Listen queues that are long enough for a burst of connections, so that the backend refuses none.
            namespace.sysctl("net.core.somaxconn", "16384")?;
            namespace.sysctl("net.ipv4.tcp_max_syn_backlog", "16384")?;
            backends.push(Backend { name, namespace, address: backend(n) });
        }
        let clients = create("client")?;
        clients.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;

        Ok(Self {
            client: clients,
            clients: (1..=topology.clients).map(client).collect(),
            edge: if has_edge { Some(router("edge")?) } else { None },
            xlb: balancer(names.first().unwrap_or(&"xlb"))?,
            others: names.iter().skip(1).map(balancer).collect::<Result<_>>()?,
            interfaces: match topology.shape {
                Shape::TwoNics | Shape::Pair | Shape::Routers => vec!["eth0", "eth1"],
                Shape::OneNic | Shape::Trio => vec!["eth0"],
            },
            switch: if far { router("core")? } else { create("switch")? },
            backends,
        })
    }

    fn wire_two_nics(&self) -> Result<()> {
        link::veth((&self.client, "eth0"), (&self.xlb, "eth0"))?;
        link::veth((&self.xlb, "eth1"), (&self.switch, "xlb"))?;
        link::behave_as_a_nic((&self.client, "eth0"))?;
        link::behave_as_a_nic((&self.switch, "xlb"))?;
        self.join(&["xlb"])?;

        self.address_xlb("eth0", "eth1")?;
        self.address_clients()
    }

    fn wire_one_nic(&self) -> Result<()> {
        link::veth((&self.client, "eth0"), (&self.switch, "client"))?;
        link::veth((&self.xlb, "eth0"), (&self.switch, "xlb"))?;
        for end in [(&self.client, "eth0"), (&self.switch, "client"), (&self.switch, "xlb")] {
            link::behave_as_a_nic(end)?;
        }
        self.join(&["client", "xlb"])?;

        self.address_xlb("eth0", "eth0")?;
        self.address_clients()
    }

    fn wire_pair(&self) -> Result<()> {
        let Some(edge) = &self.edge else { return Ok(()) };
        let ports = Shape::Pair.balancers();
        self.wire_to_edge(edge, ports)?;
        for (port, node) in ports.iter().zip(self.balancers()) {
            link::veth((node, "eth1"), (&self.switch, port))?;
            link::behave_as_a_nic((&self.switch, port))?;
        }
        self.join(ports)?;
        self.queue_everywhere(edge, ports)?;
        for port in ports {
            link::flood_nothing((&self.switch, port))?;
            link::queue((&self.switch, port))?;
        }
        for (number, node) in (1..).zip(self.balancers()) {
            link::address((node, "eth1"), address::inside(number))?;
        }
        Ok(())
    }

    fn wire_trio(&self) -> Result<()> {
        let Some(edge) = &self.edge else { return Ok(()) };
        let ports = Shape::Trio.balancers();
        self.wire_to_edge(edge, ports)?;
        link::veth((edge, "servers"), (&self.switch, "edge"))?;
        self.join(&["edge"])?;
        self.queue_everywhere(edge, ports)?;
        for end in [(edge, "servers"), (&self.switch, "edge")] {
            link::behave_as_a_nic(end)?;
            link::queue(end)?;
        }
        link::address((edge, "servers"), address::CORE_INSIDE)
    }

    /// Plugs clients and balancers into a router, which has a bridge over the ports of the balancers.
    fn wire_to_edge(&self, edge: &Namespace, ports: &[&str]) -> Result<()> {
        link::veth((&self.client, "eth0"), (edge, "eth0"))?;
        for end in [(&self.client, "eth0"), (edge, "eth0")] {
            link::behave_as_a_nic(end)?;
        }
        for (port, node) in ports.iter().zip(self.balancers()) {
            link::veth((node, "eth0"), (edge, port))?;
            link::behave_as_a_nic((edge, port))?;
        }
        let names: Vec<_> = ports.iter().map(|&port| port.to_owned()).collect();
        link::bridge(edge, "br0", &names)?;
        ports.iter().try_for_each(|port| link::flood_nothing((edge, port)))?;

        link::address((edge, "eth0"), address::EDGE_OUTSIDE)?;
        link::address((edge, "br0"), address::EDGE)?;
        for (number, node) in (1..).zip(self.balancers()) {
            link::address((node, "eth0"), address::outside(number))?;
            link::default_route(node, address::EDGE)?;
        }
        self.address_clients()?;
        link::default_route(&self.client, address::EDGE_OUTSIDE)
    }

    /// For thousands of connections that repeat at once what was lost.
    fn queue_everywhere(&self, edge: &Namespace, ports: &[&str]) -> Result<()> {
        let of_backends =
            self.backends.iter().flat_map(|it| [(&it.namespace, "eth0"), (&self.switch, it.name.as_str())]);
        let of_edge = ports.iter().map(|&port| (edge, port));
        let mut ends = of_backends.chain(of_edge).chain([(&self.client, "eth0"), (edge, "eth0")]);
        ends.try_for_each(link::queue)
    }

    /// All balancers, in order.
    pub fn balancers(&self) -> impl Iterator<Item = &Namespace> {
        [&self.xlb].into_iter().chain(&self.others)
    }

    fn wire_routers(&self) -> Result<()> {
        let (Some(edge), core) = (&self.edge, &self.switch) else {
            return Ok(());
        };
        link::veth((&self.client, "eth0"), (edge, "eth0"))?;
        link::veth((edge, "eth1"), (&self.xlb, "eth0"))?;
        link::veth((&self.xlb, "eth1"), (core, "xlb"))?;
        for end in [(&self.client, "eth0"), (edge, "eth0"), (edge, "eth1"), (core, "xlb")] {
            link::behave_as_a_nic(end)?;
        }
        self.join(&[])?;

        self.address_xlb("eth0", "eth1")?;
        link::address((edge, "eth0"), address::EDGE_OUTSIDE)?;
        link::address((edge, "eth1"), address::EDGE)?;
        link::address((core, "xlb"), address::CORE)?;
        link::address((core, "br0"), address::CORE_INSIDE)?;
        self.address_clients()?;
        link::default_route(&self.client, address::EDGE_OUTSIDE)?;
        link::default_route(edge, address::FRONT)?;
        link::route(&self.xlb, address::EDGE_OUTSIDE, address::EDGE)?;
        link::route(&self.xlb, address::CORE_INSIDE, address::CORE)?;
        link::default_route(core, address::SOURCE)
    }

    /// Cables from the switch to the backends, and a bridge over them and `others`.
    fn join(&self, others: &[&str]) -> Result<()> {
        let mut ports: Vec<String> = others.iter().map(|&port| port.to_owned()).collect();
        for Backend { name, namespace, .. } in &self.backends {
            link::veth((&self.switch, name), (namespace, "eth0"))?;
            link::behave_as_a_nic((&self.switch, name))?;
            link::behave_as_a_nic((namespace, "eth0"))?;
            ports.push(name.clone());
        }
        link::bridge(&self.switch, "br0", &ports)
    }

    fn wire_backends(&self, topology: &Topology) -> Result<()> {
        let gateway = match (topology.shape, topology.mode) {
            (Shape::TwoNics | Shape::OneNic | Shape::Pair, Mode::FullNat) => None,
            (Shape::TwoNics | Shape::OneNic | Shape::Pair, Mode::Nat) => Some(address::SOURCE),
            (Shape::Routers | Shape::Trio, Mode::FullNat | Mode::Nat) => Some(address::CORE_INSIDE),
        };
        for Backend { namespace, address, .. } in &self.backends {
            link::address((namespace, "eth0"), *address)?;
            if let Some(gateway) = gateway {
                link::default_route(namespace, gateway)?;
            }
        }
        Ok(())
    }

    fn address_xlb(&self, front: &str, back: &str) -> Result<()> {
        for pair in [address::FRONT, address::SERVICE, address::SERVICE_2] {
            link::address((&self.xlb, front), pair)?;
        }
        link::address((&self.xlb, back), address::SOURCE)
    }

    fn address_clients(&self) -> Result<()> {
        self.clients.iter().try_for_each(|&pair| link::address((&self.client, "eth0"), pair))
    }
}

/// Makes a host a router.
fn route_packets(namespace: Namespace) -> Result<Namespace> {
    namespace.sysctl("net.ipv4.ip_forward", "1")?;
    namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    Ok(namespace)
}

/// Lets IPv6 addresses survive their interface being down, as IPv4 addresses do.
fn keep_addresses(namespace: Namespace) -> Result<Namespace> {
    namespace.sysctl("net.ipv6.conf.all.keep_addr_on_down", "1")?;
    Ok(namespace)
}
