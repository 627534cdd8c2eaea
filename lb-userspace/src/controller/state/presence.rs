//! Which listen addresses this host has. keepalived or the like moves them between the nodes of a pair, so a node without
//! them is not at fault.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::State;
use crate::{event::HopState, spec::Service, view::Presence};

impl State {
    /// How many of a service's listen addresses are on this host.
    pub fn presence(&self, service: &Service) -> Presence {
        self.presence_of(service.listen.iter())
    }

    /// How many listen addresses of all services are on this host.
    pub fn node_presence(&self) -> Presence {
        self.presence_of(self.spec.services.iter().flat_map(|service| &service.listen))
    }

    fn presence_of<'a>(&self, mut listens: impl Iterator<Item = &'a SocketAddr> + Clone) -> Presence {
        let any_present = listens.clone().any(|listen| self.has(listen.ip()));
        let any_missing = listens.any(|listen| !self.has(listen.ip()));
        match (any_present, any_missing) {
            (true, true) => Presence::Partial,
            (false, true) => Presence::Standby,
            (true | false, false) => Presence::Active,
        }
    }

    /// The listen addresses that are not on this host, with the command that adds them.
    pub fn missing_listens(&self) -> Vec<String> {
        let mut services: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
        for service in &self.spec.services {
            for listen in service.listen.iter().filter(|listen| !self.has(listen.ip())) {
                let names = services.entry(listen.ip()).or_default();
                if names.last() != Some(&service.name.as_str()) {
                    names.push(&service.name);
                }
            }
        }
        let lines = services.into_iter();
        lines
            .map(|(address, names)| format!("{address} ({}): {}", some_of(&names), self.remedy(address)))
            .collect()
    }

    /// Says whether xlb itself brings the addresses of ready services.
    pub const fn set_brings_addresses(&mut self, does: bool) {
        self.brings_addresses = does;
    }

    fn remedy(&self, address: IpAddr) -> String {
        match self.brings_addresses {
            true => "withdrawn by xlb ([announce])".to_owned(),
            false => self.add(address, None),
        }
    }

    /// A service that has only some of its listen addresses, or lacks a source, does not serve all of its clients.
    pub(super) fn missing_addresses(&self, service: &Service) -> Vec<String> {
        // It has them when it is ready.
        if self.brings_addresses {
            return Vec::new();
        }
        let name = &service.name;
        let presence = self.presence(service);
        let missing = |address: &IpAddr| !self.has(*address);
        let listens = service.listen.iter().map(|listen| listen.ip()).filter(missing);
        let listens = listens.filter(|_| presence == Presence::Partial).map(|address| {
            format!(
                "service {name} listens on {address}, which is not an address of this host, unlike others of the service: {}",
                self.add(address, None)
            )
        });
        let sources = service.sources.iter().copied().filter(missing);
        let sources = sources.filter(|_| presence != Presence::Standby).map(|address| {
            format!(
                "service {name} uses the source {address}, which is not an address of this host: {}",
                self.add(address, self.interface_to_backends(service, address))
            )
        });
        listens.chain(sources).collect()
    }

    /// Before the first report, nothing is missing.
    fn has(&self, address: IpAddr) -> bool {
        self.addresses.is_empty() || self.addresses.contains(&address)
    }

    fn add(&self, address: IpAddr, interface: Option<&str>) -> String {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let first = || self.attached.first().map_or("IFACE", |interface| interface.name.as_str());
        format!("ip address add {address}/{length} dev {}", interface.unwrap_or_else(first))
    }

    /// The interface of the route to the backends, which answer to the source.
    fn interface_to_backends(&self, service: &Service, source: IpAddr) -> Option<&str> {
        let backends = service.backends.iter().filter(|it| it.address.is_ipv4() == source.is_ipv4());
        backends.into_iter().find_map(|backend| match self.reach.seen(self.path(service, backend))? {
            HopState::Resolved(hop) => {
                self.attached.iter().find(|it| it.index == hop.interface).map(|it| it.name.as_str())
            }
            HopState::Unresolved { interface, .. } => Some(interface.as_str()),
            HopState::Outside { .. } | HopState::Local | HopState::NoRoute => None,
        })
    }
}

/// Thousands of services may have one address.
fn some_of(names: &[&str]) -> String {
    const MOST: usize = 3;
    match names.len().checked_sub(MOST) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MOST].join(", ")),
    }
}
