//! `xlb ha bird`: BGP sessions that announce the addresses of ready services, and nothing else.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use ipnet::IpNet;

use crate::{
    cli::failure::Failure,
    exit::Exit,
    interface_address::{InterfaceAddress, interface_of},
    spec::{Spec, rules::Family},
};

pub struct Node<'a> {
    pub file: &'a Path,
    pub spec: &'a Spec,
    pub networks: &'a [InterfaceAddress],
    /// The routers.
    pub neighbors: &'a [IpAddr],
    pub local_as: u32,
    pub neighbor_as: u32,
    /// `None`: an address of this node's interfaces.
    pub router_id: Option<Ipv4Addr>,
}

impl Node<'_> {
    /// A complete `bird.conf`.
    pub fn configuration(&self) -> Result<String, Failure> {
        let device = self.device()?;
        self.check_families()?;
        let mut text = format!(
            "# For BIRD 2, made from {} by `xlb ha bird`.\n{}\n\nprotocol device {{\n}}\n\n\
             # xlb puts the addresses of ready services on {device}, and takes them off.\n\
             # The sessions stay up all the time.\n\
             protocol direct xlb_addresses {{\n{}    interface \"{device}\";\n}}\n\n\
             # A router that is silent for 300 ms is taken for dead, and this node by the router.\n\
             protocol bfd xlb_bfd {{\n    interface {} {{\n        min rx interval 100 ms;\n        \
             min tx interval 100 ms;\n        multiplier 3;\n    }};\n    \
             # They outlive the sessions of BGP. Otherwise, the router may follow one that BIRD has given up,\n    \
             # and end BGP 3 s after it was up.\n{}}}\n",
            self.file.display(),
            self.router_id(),
            self.families().iter().map(|family| format!("    {};\n", channel(*family))).collect::<String>(),
            quoted(&self.interfaces()),
            self.distinct_neighbors().map(|it| self.bfd_session(it)).collect::<String>(),
        );
        for (place, neighbor) in self.distinct_neighbors().enumerate() {
            text += &self.session(place + 1, neighbor);
        }
        Ok(text)
    }

    fn distinct_neighbors(&self) -> impl Iterator<Item = IpAddr> {
        let mut seen = BTreeSet::new();
        self.neighbors.iter().copied().filter(move |it| seen.insert(*it))
    }

    fn bfd_session(&self, neighbor: IpAddr) -> String {
        let device = interface_of(neighbor, self.networks).map(|it| format!(" dev \"{it}\""));
        format!("    neighbor {neighbor}{};\n", device.unwrap_or_default())
    }

    fn device(&self) -> Result<&str, Failure> {
        let missing = || {
            let message = format!("{} has no [announce]: there is nothing to announce", self.file.display());
            let hint = "add these lines and restart xlb (traffic keeps flowing): [announce], device = \"lo\"";
            Failure::new(Exit::InvalidConfiguration, message).hint(hint)
        };
        self.spec.announce.as_ref().map(|announce| announce.device.as_str()).ok_or_else(missing)
    }

    /// A session carries the addresses of its own family.
    fn check_families(&self) -> Result<(), Failure> {
        let families = self.families();
        let neighbor_of = |family| self.neighbors.iter().any(|it| Family::of(*it) == family);
        if let Some(family) = families.iter().find(|family| !neighbor_of(**family)) {
            let message =
                format!("{} has {family} addresses, and no neighbor is {family}", self.file.display());
            return Err(Failure::new(Exit::Usage, message)
                .hint(format!("add --neighbor with the router's {family} address")));
        }
        if let Some(other) = self.neighbors.iter().find(|it| !families.contains(&Family::of(**it))) {
            let family = Family::of(*other);
            let message = format!("{} has no {family} address to announce to {other}", self.file.display());
            return Err(Failure::new(Exit::Usage, message).hint(format!("leave out --neighbor {other}")));
        }
        Ok(())
    }

    /// BIRD would also take an announced address, which other nodes have, too.
    fn router_id(&self) -> String {
        match self.router_id {
            Some(id) => format!("router id {id};"),
            None => {
                let names: Vec<&str> = self.spec.interfaces.iter().map(|it| it.name.as_str()).collect();
                format!(
                    "# The IPv4 address of one of these. Without one: --router-id.\nrouter id from {};",
                    quoted(&names)
                )
            }
        }
    }

    fn session(&self, number: usize, neighbor: IpAddr) -> String {
        let (local_as, neighbor_as) = (self.local_as, self.neighbor_as);
        let family = Family::of(neighbor);
        let local = self.address_towards(neighbor).map(|it| format!("{it} ")).unwrap_or_default();
        let mut text = format!(
            "\nprotocol bgp xlb_router_{number} {{\n    local {local}as {local_as};\n    \
             neighbor {neighbor} as {neighbor_as};\n    direct;\n    bfd on;\n    hold time 9;\n    \
             connect delay time 0;\n    connect retry time 1;\n    error wait time 1, 2;\n    \
             {} {{\n        import none;\n        export filter {{\n            \
             if proto != \"xlb_addresses\" then reject;\n            \
             if net ~ [\n{}\n            ] then accept;\n",
            channel(family),
            lines(&self.nets(family))
        );
        let of_peers = lines(&self.peer_nets(family));
        if !of_peers.is_empty() {
            let _infallible = write!(
                text,
                "            # Sources of peers: backends' answers come here only if that peer is gone.\n            \
                 if net ~ [\n{of_peers}\n            ] then {{\n                {}\n                \
                 accept;\n            }}\n",
                self.less_preferred()
            );
        }
        text + "            reject;\n        };\n    };\n}\n"
    }

    /// Within one AS, the path is not compared, because it is empty.
    fn less_preferred(&self) -> String {
        if self.local_as == self.neighbor_as {
            "bgp_local_pref = 50;".to_owned()
        } else {
            format!("bgp_path.prepend({});", self.local_as)
        }
    }

    /// This node's own address on the link to a router. `None`: there are several, and BIRD chooses.
    fn address_towards(&self, neighbor: IpAddr) -> Option<IpAddr> {
        let interface = interface_of(neighbor, self.networks)?;
        let announced = self.spec.addresses();
        let on_link =
            self.networks.iter().filter(|it| it.interface == interface && it.net.contains(&neighbor));
        let mut own = on_link.map(|it| it.net.addr()).filter(|address| !announced.contains(address));
        own.next().filter(|_| own.next().is_none())
    }

    /// Those to the routers, or all of xlb.
    fn interfaces(&self) -> Vec<&str> {
        let found: Option<BTreeSet<&str>> =
            self.neighbors.iter().map(|it| interface_of(*it, self.networks)).collect();
        match found {
            Some(names) => names.into_iter().collect(),
            None => self.spec.interfaces.iter().map(|it| it.name.as_str()).collect(),
        }
    }

    fn families(&self) -> Vec<Family> {
        Family::ALL.into_iter().filter(|family| !self.nets(*family).is_empty()).collect()
    }

    /// Listen addresses and this node's sources, each once.
    fn nets(&self, family: Family) -> BTreeSet<IpNet> {
        let all = nets(family, self.spec.addresses());
        all.difference(&self.peer_nets(family)).copied().collect()
    }

    fn peer_nets(&self, family: Family) -> BTreeSet<IpNet> {
        nets(family, self.spec.services.iter().flat_map(|service| service.peer_sources.iter().copied()))
    }
}

fn nets(family: Family, addresses: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpNet> {
    addresses.into_iter().filter(|it| Family::of(*it) == family).map(IpNet::from).collect()
}

fn lines(nets: &BTreeSet<IpNet>) -> String {
    nets.iter().map(|net| format!("                {net}")).collect::<Vec<_>>().join(",\n")
}

const fn channel(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
