//! Problems, and how to solve them.

use super::{State, backends};
use crate::{
    event::HopState,
    spec::{Backend, BackendName, Service},
    text::counted,
};

impl State {
    /// One line each, in the order of the file.
    pub fn warnings(&self) -> Vec<String> {
        let services = self.spec.services.iter();
        let mut warnings: Vec<String> =
            services.flat_map(|service| self.missing_addresses(service)).collect();
        warnings.extend(backends(&self.spec).filter_map(|(service, backend)| self.lost(service, backend)));
        warnings.extend(self.spec.services.iter().flat_map(|service| self.panics(service)));
        warnings
            .extend(backends(&self.spec).filter_map(|(service, backend)| self.certificate(service, backend)));
        warnings
            .extend(backends(&self.spec).filter_map(|(service, backend)| self.undecided(service, backend)));
        warnings.extend(self.unequal_mtus());
        warnings
    }

    /// A backend that cannot be reached gets no new flows.
    fn lost(&self, service: &Service, backend: &Backend) -> Option<String> {
        let (path, service, name) = (self.path(service, backend), &service.name, &backend.name);
        let address = path.to;
        let trouble = match self.reach.seen(path)? {
            HopState::Resolved(_) if self.hop(path).is_some() => return None,
            HopState::Resolved(hop) => {
                format!(
                    "its route leads through the interface with index {}, to which xlb is not attached",
                    hop.interface
                )
            }
            HopState::Unresolved { next_hop, interface } => {
                format!(
                    "the next hop {next_hop} on {interface} does not answer ARP or neighbour discovery: \
                     check that it is up and on that link"
                )
            }
            HopState::Outside { interface, is_ethernet: true } => format!(
                "its route leads through {interface}, which is not configured: add an [[interface]] named \
                 \"{interface}\" and restart xlb, or change the route to {address}"
            ),
            HopState::Outside { interface, is_ethernet: false } => format!(
                "its route leads through {interface}, which is not an Ethernet interface and is not supported: \
                 change the route to {address}"
            ),
            HopState::Local => format!(
                "{address} is an address of this host: a backend on the load balancer itself is not \
                 supported; move it to another host"
            ),
            HopState::NoRoute => match path.from {
                Some(from) => {
                    format!(
                        "there is no route to {address} from {from}: check with ip route get {address} from {from}"
                    )
                }
                None => format!("there is no route to {address}: ip route add {address} ..."),
            },
        };
        Some(format!("backend {service}/{name}: {trouble}"))
    }

    /// A certificate that ends soon, or has ended.
    fn certificate(&self, service: &Service, backend: &Backend) -> Option<String> {
        let name = BackendName::new(&service.name, &backend.name);
        let left = self.health_state(&name)?.certificate_left()?;
        let ends = match left.as_secs() / (24 * 60 * 60) {
            0 if left.is_zero() => "has ended".to_owned(),
            0 => "ends within a day".to_owned(),
            days => format!("ends in {}", counted(days, "day")),
        };
        Some(format!("backend {name}: its certificate {ends}: renew it on the server"))
    }

    /// Its health and role are older than they seem.
    fn undecided(&self, service: &Service, backend: &Backend) -> Option<String> {
        let name = BackendName::new(&service.name, &backend.name);
        let health_state = self.health_state(&name)?;
        let (check, last) = (service.health.as_ref()?, health_state.last.as_ref()?);
        (health_state.undecided >= check.fall.max(1)).then(|| {
            format!(
                "backend {name}: its check decides nothing, and health and role stay as they are: {}",
                last.detail
            )
        })
    }

    /// A line for each pool whose backends get flows whatever their health.
    fn panics(&self, service: &Service) -> Vec<String> {
        let (name, threshold) = (&service.name, service.availability.panic_threshold);
        let families = self.families_in_panic(service).into_iter();
        let panic = |family| {
            format!(
                "service {name} is in panic: fewer than {threshold} of its {family} backends are up (panic_threshold), so \
                 new flows go to all of them; check the servers, and the checks"
            )
        };
        families.map(panic).collect()
    }

    /// Packets that fit on one side are too big for the other, and depend on path MTU discovery.
    fn unequal_mtus(&self) -> Option<String> {
        let first = self.attached.first()?;
        let other = self.attached.iter().find(|other| other.mtu != first.mtu)?;
        let larger = if other.mtu > first.mtu { other } else { first };
        Some(format!(
            "{} has MTU {}, {} has MTU {}: packets that do not fit the smaller MTU are dropped as too_big; \
             make them equal: ip link set dev {} mtu {}",
            first.name,
            first.mtu,
            other.name,
            other.mtu,
            larger.name,
            first.mtu.min(other.mtu)
        ))
    }
}
