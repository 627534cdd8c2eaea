//! States for tests: one interface, services of a few lines, all backends up and reachable unless the test says
//! otherwise.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use lb_common::{
    hop::{Hop, InterfaceIndex},
    net::{Mac, Protocol},
    service::{Mode, Reject},
};

use super::{roles::RoleMemory, state::State};
use crate::{
    datapath::Attached,
    event::{Health, HopState, Path, ProbeResult, Probed},
    probe::{Facts, Probe, ProbeOutcome, Tcp},
    spec::{
        Api, Availability, Backend, BackendName, HealthCheck, Interface, Limits, LinkMode, RolePolicy,
        Scheduler, Service, Spec,
    },
};

pub const ETH0: InterfaceIndex = InterfaceIndex(2);

pub fn spec(services: Vec<Service>) -> Spec {
    Spec {
        interfaces: vec![Interface { name: "eth0".into(), mode: Default::default() }],
        api: Api { socket: PathBuf::from("/run/xlb/xlb.sock") },
        metrics: None,
        limits: Limits::default(),
        hash: Default::default(),
        announce: None,
        group: None,
        cluster: None,
        programs_at_once: 8,
        services: services.into_iter().map(Into::into).collect(),
    }
}

pub fn service(name: &str, protocol: Protocol, listen: &str, backends: Vec<Backend>) -> Service {
    Service {
        name: name.into(),
        listen: vec![listen.parse().unwrap()],
        protocol,
        mode: Mode::FullNat,
        peer_sources: Vec::new(),
        sources: vec!["10.0.0.1".parse().unwrap()],
        scheduler: Scheduler::RoundRobin,
        availability: Availability::default(),
        role: RolePolicy::default(),
        reject: Reject::Reset,
        share_flows: Default::default(),
        health: Some(HealthCheck {
            probe: Probe::Tcp(Tcp),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
        }),
        backends,
    }
}

pub fn backend(name: &str, address: &str) -> Backend {
    Backend { name: name.into(), address: address.parse().unwrap(), weight: 100, backup: false, max_flows: 0 }
}

/// Web servers at 10.0.0.11, .12, .13 behind 192.0.2.10:80.
pub fn web(protocol: Protocol) -> Service {
    let backends =
        (1..=3).map(|n| backend(&format!("web-{n}"), &format!("10.0.0.{}:8080", 10 + n))).collect();
    service("web", protocol, "192.0.2.10:80", backends)
}

pub fn name(text: &str) -> BackendName {
    text.parse().unwrap()
}

pub fn eth0() -> Attached {
    Attached { name: "eth0".into(), index: ETH0, mode: LinkMode::Native, mtu: 1500, mac: Mac([1, 2, 3]) }
}

pub fn hop(address: IpAddr) -> Hop {
    let low = match address {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    Hop { destination: Mac([0, 0, u16::from(low)]), source: Mac([1, 2, 3]), interface: ETH0, mtu: 1500 }
}

/// The path to an address, without a source.
pub fn path(to: IpAddr) -> Path {
    Path { to, from: None }
}

/// All backends of the spec are reachable through eth0.
pub fn hops(spec: &Spec) -> BTreeMap<Path, HopState> {
    let backends = spec.services.iter().flat_map(|service| &service.backends);
    backends.map(|it| it.address.ip()).map(|it| (path(it), HopState::Resolved(hop(it)))).collect()
}

/// A probe of the backend that has this name.
pub fn probed(state: &State, backend: &str, health: Health) -> Probed {
    let outcome = match health {
        Health::Up => ProbeOutcome::Success,
        Health::Down => ProbeOutcome::Failure,
    };
    let target = state.find(&name(backend)).and_then(|(service, it)| state.target(service, it));
    Probed {
        backend: name(backend),
        address: target.map_or(socket("0.0.0.0:0"), |target| target.address),
        change: Some(health),
        result: ProbeResult {
            outcome,
            detail: "from the test".into(),
            facts: Facts::default(),
            duration: Duration::from_millis(1),
            at: SystemTime::UNIX_EPOCH,
        },
    }
}

/// Attached to eth0, all backends reachable, none probed yet.
pub fn unprobed(services: Vec<Service>, now: Instant) -> State {
    let spec = spec(services);
    let hops = hops(&spec);
    let mut state = State::new(spec, BTreeMap::new(), RoleMemory::default(), now);
    state.links(vec![eth0()], [].into());
    state.hops(hops);
    state
}

/// Attached to eth0, all backends reachable and up.
pub fn serving(services: Vec<Service>, now: Instant) -> State {
    let mut state = unprobed(services, now);
    for target in state.targets() {
        state.probed(probed(&state, &target.backend.to_string(), Health::Up), now);
    }
    state
}

pub fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
