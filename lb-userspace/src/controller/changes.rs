//! The differences between two specs, in the operator's words.

use std::{collections::BTreeMap, fmt::Display};

use super::identity::{self, Former};
use crate::spec::{Backend, Service, Spec};

/// One line for each difference in services and backends.
pub fn changes(before: &Spec, after: &Spec) -> Vec<String> {
    let formers = Former::in_spec(before).of_each(&after.services);
    let mut lines = Vec::new();
    if before.hash.key != after.hash.key {
        lines.push("the hash key changed: the backends of new flows change, except in turn".to_owned());
    }
    for (place, old) in before.services.iter().enumerate() {
        if !formers.contains(&Some(place)) {
            lines.push(format!("{}: removed", old.name));
        }
    }
    for (new, former) in after.services.iter().zip(&formers) {
        match former.map(|place| &before.services[place]) {
            Some(old) => of_service(old, new, &mut lines),
            None => lines.push(format!("{}: added", new.name)),
        }
    }
    lines
}

/// Parts of the file that are read only at start and have changed since. (For `[limits]`, see
/// [`pinned`](super::pinned): they need more than a restart.)
pub fn need_restart(running: &Spec, file: &Spec) -> Vec<String> {
    const RESTART: &str = "restart xlb to apply it (traffic keeps flowing)";
    let parts = [
        ("[[interface]]", running.interfaces != file.interfaces),
        ("[api]", running.api != file.api),
        ("[metrics]", running.metrics != file.metrics),
        ("[announce]", running.announce != file.announce),
        ("[group]", running.group != file.group),
        ("[cluster]", running.cluster != file.cluster),
    ];
    let changed = parts.into_iter().filter(|(_, has_changed)| *has_changed);
    changed.map(|(part, _)| format!("{part} has changed: {RESTART}")).collect()
}

fn of_service(old: &Service, new: &Service, lines: &mut Vec<String>) {
    if old.name != new.name {
        lines.push(format!("{}: renamed to {}", old.name, new.name));
    }
    let parts = [
        ("listen", old.listen != new.listen),
        ("protocol", old.protocol != new.protocol),
        ("mode", old.mode != new.mode),
        ("source", old.sources != new.sources || old.peer_sources != new.peer_sources),
        ("scheduler", old.scheduler != new.scheduler),
        ("quorum", old.availability.quorum != new.availability.quorum),
        ("panic_threshold", old.availability.panic_threshold != new.availability.panic_threshold),
        ("on_down", old.availability.on_down != new.availability.on_down),
        ("on_refused", old.availability.on_refused != new.availability.on_refused),
        ("slow_start", old.availability.slow_start != new.availability.slow_start),
        ("reject", old.reject != new.reject),
        ("share_flows", old.share_flows != new.share_flows),
        ("role", old.role.wanted != new.role.wanted),
        ("on_role_change", old.role.on_change != new.role.on_change),
        ("max_lag", old.role.max_lag != new.role.max_lag),
        ("max_lag_bytes", old.role.max_lag_bytes != new.role.max_lag_bytes),
        ("health", old.health != new.health),
    ];
    let changed = parts.into_iter().filter(|(_, has_changed)| *has_changed);
    lines.extend(changed.map(|(part, _)| format!("{}: {part} changed", new.name)));

    let (old_names, new_names) = (identity::by_name(old), identity::by_name(new));
    let new_addresses = identity::by_address(new);
    // If the old name now belongs to another backend, that backend's address has changed.
    let new_name = |gone: &Backend| {
        let name = new_addresses.get(&gone.address)?.name.as_str();
        (!old_names.contains_key(name) && !new_names.contains_key(gone.name.as_str())).then_some(name)
    };
    let mut renamed = BTreeMap::new();
    for gone in &old.backends {
        if let Some(name) = new_name(gone) {
            renamed.insert(name, gone);
        } else if !new_names.contains_key(gone.name.as_str()) {
            lines.push(format!("{}/{}: removed", new.name, gone.name));
        }
    }
    for backend in &new.backends {
        let was = renamed.get(backend.name.as_str());
        if let Some(was) = was {
            lines.push(format!("{}/{}: renamed to {}", new.name, was.name, backend.name));
        }
        match was.or_else(|| old_names.get(backend.name.as_str())) {
            Some(before) => of_backend(&new.name, before, backend, lines),
            None => lines.push(format!("{}/{}: added", new.name, backend.name)),
        }
    }
}

fn of_backend(service: &str, old: &Backend, new: &Backend, lines: &mut Vec<String>) {
    let mut compare = |what: &str, before: &dyn Display, after: &dyn Display| {
        let (before, after) = (before.to_string(), after.to_string());
        if before != after {
            lines.push(format!("{service}/{}: {what} {before} -> {after}", new.name));
        }
    };
    compare("address", &old.address, &new.address);
    compare("weight", &old.weight, &new.weight);
    compare("backup", &old.backup, &new.backup);
    compare("max_flows", &old.max_flows, &new.max_flows);
}

#[cfg(test)]
mod tests {
    use lb_common::net::Protocol;

    use super::{super::fixture, *};

    #[test]
    fn as_many_backends_as_a_service_may_have_are_compared() {
        let with = |prefix: &str| {
            let backend = |n: u32| {
                let address = format!("10.{}.{}.1:80", n >> 8, n & 255);
                fixture::backend(&format!("{prefix}{n}"), &address)
            };
            let backends = (0..65_536).map(backend).collect();
            fixture::spec(vec![fixture::service("web", Protocol::Tcp, "192.0.2.10:80", backends)])
        };

        assert_eq!(changes(&with("a"), &with("a")), [""; 0]);

        let renamed = changes(&with("a"), &with("b"));
        assert_eq!((renamed.len(), renamed[7].as_str()), (65_536, "web/a7: renamed to b7"));
    }
}
