//! Validates the file and builds the spec.
//!
//! All rules that need more than one value are here. A value whose mistake was already reported is left out or
//! replaced by its default: rules that need it are skipped, the others still apply, and the resulting spec is not
//! used.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use lb_common::{
    limits::{MAX_BACKENDS, MAX_SERVICES, MAX_SLOTS, MAX_SOURCES, Room},
    net::Protocol,
    service::{Mode, Reject},
};

use super::{
    Announce, Api, AttachMode, Hash, Interface, Limits, Scheduler, Service, ShareFlows, Spec,
    exec::{Programs, Writers},
    file::{self, File},
    group, health,
    rules::{Family, OwnAddresses},
    share_flows,
};
use crate::{
    document::{
        mistakes::{At, Report, Span},
        table::List,
    },
    hash_key::HashKey,
    paths,
};

mod backend;

/// What the file says may depend on this of the host.
pub struct Host<'h> {
    /// No backend may have one of them.
    pub addresses: &'h BTreeSet<IpAddr>,
    pub name: String,
}

/// Where mistakes are reported: those in the services, and those in the rest of the file.
pub struct Reports<'r, 't> {
    pub file: &'r Report<'t>,
    pub services: &'r Report<'t>,
}

/// Is a file without services valid?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayLackServices {
    /// They come from the cluster.
    Yes,
    No,
}

/// Validates the file. The spec is valid only if the reports are empty.
pub fn validate(
    file: File<'_>,
    host: &Host<'_>,
    writers: Writers,
    may_lack: MayLackServices,
    reports: &Reports<'_, '_>,
) -> Spec {
    let Reports { file: report, services: of_services } = *reports;
    let own = own_addresses(&file, host.addresses);
    let programs = file.exec.validate(writers, report);
    let peer_sources = file.group.as_ref().map(group::Written::sources).unwrap_or_default();
    let services = file.services.as_deref().unwrap_or_default();
    let has_group = file.group.is_some();
    let group = file.group.and_then(|group| group.validate(&host.name, services, report));
    let node = group.as_ref().map(|group| group.node.as_str());
    let cluster = file.cluster.and_then(|cluster| cluster.validate(node, &host.name, report));
    let limits = limits(file.limits, report);
    if let Some(services) = &file.services {
        if services.is_empty() && may_lack == MayLackServices::No {
            // As in HAProxy: an empty file is more likely to be an accident than intended, and a reload must not apply it.
            of_services.add(Span::START, "no [[service]]: at least one is required");
        }
        totals(services, limits.room(), of_services);
        unique(services.iter().filter_map(|it| it.name.as_ref()), "service", of_services);
        listen_once(services, of_services);
        share_flows::validate(services, has_group, of_services);
    }

    let (headers, services): (Vec<_>, Vec<_>) = file
        .services
        .into_iter()
        .flatten()
        .map(|written| (written.header, service(written, &own, &peer_sources, programs, of_services)))
        .unzip();
    slots(&services, &headers, limits, of_services);
    Spec {
        interfaces: interfaces(file.interfaces, report),
        api: Api { socket: file.socket.or(PathBuf::from(paths::SOCKET)) },
        metrics: file.metrics.or(Some(paths::METRICS)),
        limits,
        announce: file.announce.map(|device| Announce { device: device.value }),
        hash: Hash { key_file: file.key_file.value(), key: HashKey::default() },
        group,
        cluster,
        programs_at_once: programs.most_at_once,
        services: services.into_iter().map(Into::into).collect(),
    }
}

fn interfaces(written: Option<Vec<file::Interface>>, report: &Report<'_>) -> Vec<Interface> {
    let Some(written) = written else { return Vec::new() };
    if written.is_empty() {
        report.add(Span::START, "no [[interface]]: at least one is required");
    }
    unique(written.iter().filter_map(|it| it.name.as_ref()), "interface", report);
    let interface = |it: file::Interface| {
        Some(Interface { name: it.name?.value, mode: it.mode.or(AttachMode::default()) })
    };
    written.into_iter().filter_map(interface).collect()
}

fn limits(written: file::Limits, report: &Report<'_>) -> Limits {
    let default = Limits::default();
    let (flows, flows_ipv6) =
        (written.flows.or_if_absent(default.flows), written.flows_ipv6.or_if_absent(default.flows_ipv6));
    // A default that depends on another value.
    let most = flows.zip(flows_ipv6).map_or(u32::MAX, |(flows, flows_ipv6)| flows.max(flows_ipv6));
    if let Some(half_open) = written.half_open_flows.good().filter(|it| it.value > most) {
        let message =
            format!("`{}` half-open flows exceed the larger flow table: at most {most}", half_open.value);
        report.add(half_open.span, message);
    }
    Limits {
        flows: written.flows.or(default.flows),
        flows_ipv6: written.flows_ipv6.or(default.flows_ipv6),
        half_open_flows: written.half_open_flows.or(default.half_open_flows.min(most)),
        // A value that cannot be read is a mistake of its own, and allows whatever else the file has.
        services: written.services.or_if_absent(default.services).unwrap_or(MAX_SERVICES),
        backends: written.backends.or_if_absent(default.backends).unwrap_or(MAX_BACKENDS),
        slots: written.slots.or_if_absent(default.slots).unwrap_or(MAX_SLOTS),
    }
}

fn service(
    written: file::Service<'_>,
    own: &OwnAddresses,
    peer_sources: &BTreeSet<IpAddr>,
    programs: Programs,
    report: &Report<'_>,
) -> Service {
    families(&written, peer_sources, report);
    let health = health::validate(&written, programs, report);
    let availability = written.availability.validate(&written.protocol, report);
    let protocol = written.protocol.or_if_absent(Protocol::Tcp).unwrap_or(Protocol::Tcp);
    let (peer_sources, sources) =
        values(&written.source).into_iter().partition(|it| peer_sources.contains(it));
    let mut service = Service {
        role: written.role.validate(health.as_ref(), (protocol, availability.panic_threshold), report),
        health,
        availability,
        name: written.name().to_owned(),
        listen: values(&written.listen),
        protocol,
        mode: written.mode.or(Mode::FullNat),
        sources,
        peer_sources,
        scheduler: written.scheduler.or(Scheduler::default()),
        reject: written.reject.or(Reject::default()),
        share_flows: written.share_flows.or(ShareFlows::default()),
        backends: Vec::new(),
    };
    let may_listen_elsewhere = !written.listen.is_complete || written.listen.items.is_empty();
    let mut holders: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for written in backend::named_once(written.backends, report) {
        let address = written.address.as_ref().map(|it| it.value);
        let holder = address.and_then(|it| holders.get(&it)).map(String::as_str);
        let valid = backend::validate(written, &service, may_listen_elsewhere, holder, own, report);
        holders.extend(valid.iter().map(|it| (it.address, it.name.clone())));
        service.backends.extend(valid);
    }
    service
}

/// Each listen address needs backends of its family and, with full-nat, sources. Backends and sources of other
/// families are mistakes.
fn families(service: &file::Service<'_>, peer_sources: &BTreeSet<IpAddr>, report: &Report<'_>) {
    if service.listen.is_complete && service.listen.items.is_empty() {
        let place = service.listen.span.unwrap_or(service.header);
        report
            .add(place, "a service needs at least one listen address, such as listen = [\"192.0.2.10:80\"]");
    }
    if service.backends.as_ref().is_some_and(Vec::is_empty) {
        report.add(service.header, format!("service `{}` has no [[service.backend]]", service.name()));
    }
    for family in Family::ALL {
        sources(service, family, peer_sources, report);
        listens(service, family, report);
    }
    twice(&service.source.items, report);
}

fn sources(
    service: &file::Service<'_>,
    family: Family,
    peer_sources: &BTreeSet<IpAddr>,
    report: &Report<'_>,
) {
    if service.mode.or_if_absent(Mode::FullNat) == Some(Mode::Nat) {
        if let Some(place) = service.source.span {
            report.add(place, "`source` is not allowed in mode `nat`: backends see the client's own address");
        }
        return;
    }
    let sources = || service.source.items.iter().filter(|it| Family::of(it.value) == family);
    let mut own = sources().filter(|it| !peer_sources.contains(&it.value)).peekable();
    if let Some(first) = sources().next().filter(|_| own.peek().is_none() && service.source.is_complete) {
        let name = service.name();
        let message = format!(
            "service `{name}`: all of its {family} sources belong to peers (`source` in [[group.peer]]): \
             this node needs one that no other has"
        );
        report.add(first.span, message);
    }
    if let Some(one_too_many) = own.nth(MAX_SOURCES) {
        let message = format!("a service has at most {MAX_SOURCES} sources of each family on a node");
        report.add(one_too_many.span, message);
    }
    let may_listen = !service.listen.is_complete || service.listen.items.is_empty();
    if let Some(source) = sources().next().filter(|_| !may_listen && service.listen_of(family).is_none()) {
        let name = service.name();
        report.add(
            source.span,
            format!("service `{name}` does not listen on {family}: this source would never be used"),
        );
    }
}

fn listens(service: &file::Service<'_>, family: Family, report: &Report<'_>) {
    let Some(listen) = service.listen_of(family) else { return };
    let name = service.name();
    let needs_source =
        service.mode.or_if_absent(Mode::FullNat) == Some(Mode::FullNat) && service.source.is_complete;
    if needs_source && !service.source.items.iter().any(|it| Family::of(it.value) == family) {
        let message = format!(
            "service `{name}` listens on {family} here, but has no {family} `source`: \
             full-nat needs one: the local address that packets to backends are sent from"
        );
        report.add(listen.span, message);
    }
    // A backend whose address is invalid may have been meant for any family.
    let may_be = |backend: &file::Backend| {
        backend.address.as_ref().is_none_or(|address| Family::of(address.value.ip()) == family)
    };
    if service.backends.as_ref().is_some_and(|all| !all.is_empty() && !all.iter().any(may_be)) {
        let message = format!(
            "service `{name}` listens on {family} here, but has no {family} backend: \
             xlb does not translate between IPv4 and IPv6"
        );
        report.add(listen.span, message);
    }
}

/// Address, port and protocol identify a service, so no two services share all three.
fn listen_once(services: &[file::Service<'_>], report: &Report<'_>) {
    let mut seen: BTreeMap<_, Span> = BTreeMap::new();
    for service in services {
        let Some(protocol) = service.protocol.or_if_absent(Protocol::Tcp) else { continue };
        for listen in &service.listen.items {
            if let Some(first) = seen.get(&(listen.value, protocol)) {
                let line = report.line(*first);
                report.add(
                    listen.span,
                    format!("`{}` is already a listen address on line {line}", listen.value),
                );
            } else {
                seen.insert((listen.value, protocol), listen.span);
            }
        }
    }
}

/// The limits over all services.
fn totals(services: &[file::Service<'_>], room: Room, report: &Report<'_>) {
    let raise = "`services` in [limits]";
    total(services, room.services as usize, "services", raise, |_| 1, report);
    let backends = |service: &file::Service<'_>| service.backends.as_ref().map_or(0, Vec::len);
    total(services, room.backends as usize, "backends", "`backends` in [limits]", backends, report);

    // Entries of the map `SERVICES`: one per listen address, and one per local address and protocol.
    let mut ours = BTreeSet::new();
    let keys = |service: &file::Service<'_>| {
        let protocol = service.protocol.or_if_absent(Protocol::Tcp);
        let listen = service.listen.items.iter().map(|it| it.value.ip());
        let addresses = listen.chain(service.source.items.iter().map(|it| it.value));
        service.listen.items.len() + addresses.filter(|address| ours.insert((*address, protocol))).count()
    };
    let what = "listen and source addresses";
    let raise = "`services` in [limits], which sets this limit \
                 (one for each listen endpoint, and one for each address and protocol)";
    total(services, room.service_keys() as usize, what, raise, keys, report);
}

/// Reports the service with which a sum exceeds its limit.
fn total(
    services: &[file::Service<'_>],
    most: usize,
    what: &str,
    raise: &str,
    count: impl FnMut(&file::Service<'_>) -> usize,
    report: &Report<'_>,
) {
    let sums = services.iter().map(count).scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    if let Some((service, _)) = services.iter().zip(sums).find(|(_, sum)| *sum > most) {
        report.add(
            service.header,
            format!("too many {what}, from this service on: at most {most}; raise {raise}"),
        );
    }
}

/// The schedules of all services together. A service that is too large by itself is reported as the first one.
fn slots(services: &[Service], headers: &[Span], limits: Limits, report: &Report<'_>) {
    let mut needed = 0;
    for (service, header) in services.iter().zip(headers) {
        needed += service.most_slots();
        if needed > limits.slots.into() {
            let message = format!(
                "too many slots, from this service on: its schedules and those before need {needed}, at most {}; raise \
                 `slots` in [limits]",
                limits.slots
            );
            report.add(*header, message);
            return;
        }
    }
}

fn own_addresses(file: &File<'_>, host: &BTreeSet<IpAddr>) -> OwnAddresses {
    let mut own = OwnAddresses::default();
    for service in file.services.iter().flatten() {
        let listen = service.listen.items.iter().map(|it| it.value.ip());
        own.extend(service.name(), listen, service.source.items.iter().map(|it| it.value));
    }
    own.extend_host(host);
    own
}

/// Names are unique.
fn unique<'n>(names: impl Iterator<Item = &'n At<String>>, what: &str, report: &Report<'_>) {
    let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
    for name in names {
        if let Some(first) = seen.get(name.value.as_str()) {
            let line = report.line(*first);
            report.add(name.span, format!("{what} `{}` is already defined on line {line}", name.value));
        } else {
            seen.insert(&name.value, name.span);
        }
    }
}

fn twice(sources: &[At<IpAddr>], report: &Report<'_>) {
    let mut seen = BTreeSet::new();
    for source in sources.iter().filter(|source| !seen.insert(source.value)) {
        report.add(source.span, format!("source `{}` is listed twice", source.value));
    }
}

fn values<T: Copy>(list: &List<T>) -> Vec<T> {
    list.items.iter().map(|item| item.value).collect()
}
