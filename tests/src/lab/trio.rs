//! Three balancers of a group that are active at once: each announces the service's addresses to the router by BGP.
//!
//! ```text
//!   client ── edge ─┬─ lb-1, lb-2, lb-3     ECMP over those that announce the address
//!                   └─ switch ─┬─ web-1
//!                              └─ web-2 ..
//! ```

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Config, Family, Lab, Namespace, Pair, Shape, Topology,
    address::{self, outside, own_source},
    bird::{self, Bird, PROTOCOL_OPTIONS},
    nodes::{Authority, Cable, Node},
    wait::eventually,
};

/// BIRD's start, and the first checks of xlb.
const PATIENCE: Duration = Duration::from_secs(30);

/// The lab, and all nodes.
pub struct Trio {
    /// `lb-1` first.
    pub nodes: Vec<Node>,
    /// BIRD of each node.
    pub birds: Vec<Bird>,
    router: Bird,
    /// Dropped last.
    pub lab: Lab,
}

impl Trio {
    /// The network. The servers must run before the nodes start.
    pub fn network(tag: &'static str) -> Result<Lab> {
        let lab = Lab::build(&Topology::new(tag, Shape::Trio))?;
        let edge = edge(&lab)?;
        for family in ["ipv4", "ipv6"] {
            // Hashes addresses, protocol and ports of the packet. Policy 1 takes the hash of the sender's socket where a veth
            // carries it, and that changes when TCP repeats a segment.
            edge.sysctl(&format!("net.{family}.fib_multipath_hash_policy"), "3")?;
            edge.sysctl(&format!("net.{family}.fib_multipath_hash_fields"), "55")?;
        }
        for node in lab.balancers() {
            // The addresses are on lo, and must not be found by ARP.
            node.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
            node.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
        }
        Ok(lab)
    }

    /// Starts all nodes with services that send from all [`sources`], and waits until the router uses each of them.
    pub fn start(lab: Lab, config: &Config) -> Result<Self> {
        let ca = Authority::new(lab.directory())?;
        let places: Vec<Pair> = (1..).zip(lab.balancers()).map(|(number, _)| outside(number)).collect();
        let router = Bird::start(&lab, edge(&lab)?, "router", &router(places.len() as u8))?;
        let (mut nodes, mut birds) = (Vec::new(), Vec::new());
        for (number, host) in (1..).zip(lab.balancers()) {
            let group = Some(ca.group(number, &places, sources_of)?);
            let config = Config { group, ..config.clone().announce("lo") };
            let node = Node::start(&lab, number, host, &config)?;
            let printed = bird::printed(host, &node.xlb.config_path(), &format!("6500{number}"))?;
            birds.push(Bird::start(&lab, host, &node.name, &printed)?);
            nodes.push(node);
        }
        let trio = Self { nodes, birds, router, lab };
        for node in &trio.nodes {
            node.xlb.wait_until_all_are_up()?;
            node.wait_until_it_shares()?;
        }
        trio.wait_until_all_are_routed()?;
        Ok(trio)
    }

    /// The names of the nodes that the router sends packets of both families to.
    pub fn routed(&self) -> Result<Vec<String>> {
        let ways = [self.next_hops(Family::V4)?, self.next_hops(Family::V6)?];
        let numbered = (1..).zip(&self.nodes);
        let routed = numbered.filter(|(number, _)| {
            Family::ALL.iter().zip(&ways).all(|(family, ways)| ways.contains(&outside(*number).of(*family)))
        });
        Ok(routed.map(|(_, node)| node.name.clone()).collect())
    }

    /// Waits until the router uses all nodes.
    pub fn wait_until_all_are_routed(&self) -> Result<()> {
        let all = || Ok(self.routed()?.len() == self.nodes.len());
        let waited = eventually(PATIENCE, "the router uses all nodes", all);
        waited.map(drop).with_context(|| format!("sessions: {:?}", self.router.sessions()))
    }

    /// Waits until the router does not use a node.
    pub fn wait_until_it_is_not_routed(&self, node: usize) -> Result<()> {
        let name = &self.nodes[node].name;
        let is_gone = || Ok(!self.routed()?.contains(name));
        eventually(PATIENCE, &format!("the router does not use {name}"), is_gone).map(drop)
    }

    /// Cuts the cable of a node, or repairs it. The router's own link stays up.
    pub fn set_cable(&self, node: usize, cable: Cable) -> Result<()> {
        edge(&self.lab)?.ip(&format!("link set {} {}\n", self.nodes[node].name, cable.word()))
    }

    /// The host dies, at once.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.set_cable(node, Cable::Down)?;
        self.nodes[node].lose_everything()?;
        self.birds[node].kill()
    }

    /// The host has started again.
    pub fn bring_back(&mut self, node: usize) -> Result<()> {
        self.set_cable(node, Cable::Up)?;
        self.nodes[node].xlb.start_again()?;
        self.birds[node].start_again()
    }

    /// The next hops of the service's address.
    fn next_hops(&self, family: Family) -> Result<Vec<IpAddr>> {
        let (option, address) = match family {
            Family::V4 => ("-4", format!("{}/32", address::SERVICE.v4)),
            Family::V6 => ("-6", format!("{}/128", address::SERVICE.v6)),
        };
        let shown = edge(&self.lab)?.run(&["ip", "-json", option, "route", "show", &address])?;
        let routes: Vec<Value> = serde_json::from_str(&shown)?;
        // A route of one hop has no list. IPv6 may have a route for each.
        let hops = routes.iter().flat_map(|route| {
            let listed = route["nexthops"].as_array().cloned().unwrap_or_default();
            listed.into_iter().chain([route.clone()]).collect::<Vec<_>>()
        });
        hops.filter_map(|hop| hop["gateway"].as_str().map(str::to_owned)).map(|it| Ok(it.parse()?)).collect()
    }
}

/// What services of a trio send from.
pub fn sources(nodes: u8) -> Vec<IpAddr> {
    (1..=nodes).flat_map(sources_of).collect()
}

fn sources_of(number: u8) -> Vec<IpAddr> {
    Family::ALL.map(|family| own_source(number).of(family)).into()
}

fn edge(lab: &Lab) -> Result<&Namespace> {
    lab.edge.as_ref().context("a lab without a router")
}

/// The configuration of the router's BIRD.
fn router(nodes: u8) -> String {
    let mut text = "router id 192.0.2.254;\n\
         protocol device { }\n\
         protocol kernel { merge paths on limit 16; ipv4 { export where source = RTS_BGP; }; }\n\
         protocol kernel { merge paths on limit 16; ipv6 { export where source = RTS_BGP; }; }\n\
         protocol bfd { interface \"br0\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; }\n"
        .to_owned();
    for number in 1..=nodes {
        let Pair { v4, v6 } = outside(number);
        let _infallible = write!(
            text,
            "protocol bgp lb_{number} {{ local 192.0.2.254 as 65000; neighbor {v4} as 6500{number}; {PROTOCOL_OPTIONS}\n\
             \x20 ipv4 {{ import where net ~ [ 192.0.2.0/24{{32,32}}, 10.0.0.0/24{{32,32}} ]; export none; }}; }}\n\
             protocol bgp lb_{number}_v6 {{ local 2001:db8::fe as 65000; neighbor {v6} as 6500{number}; {PROTOCOL_OPTIONS}\n\
             \x20 ipv6 {{ import where net ~ [ 2001:db8::/64{{128,128}}, fd00::/64{{128,128}} ]; export none; }}; }}\n"
        );
    }
    text
}
