//! What is different between two specs, in the operator's words.

use std::fmt::Display;

use super::identity::{self, Former};
use crate::spec::{Backend, Service, Spec};

/// One line for each difference in what is balanced.
pub fn changes(before: &Spec, after: &Spec) -> Vec<String> {
    let formers = Former::in_spec(before).of_each(&after.services);
    let mut lines = Vec::new();
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

/// Parts of the file that are read only at start, and have changed since. (Of `[limits]`, see
/// [`pinned`](super::pinned): a restart does not put them in force.)
pub fn need_restart(running: &Spec, file: &Spec) -> Vec<String> {
    const RESTART: &str = "restart xlb to apply it (traffic keeps flowing)";
    let parts = [
        ("[[interface]]", running.interfaces != file.interfaces),
        ("[api]", running.api != file.api),
        ("[metrics]", running.metrics != file.metrics),
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
        ("source", old.sources != new.sources),
        ("scheduler", old.scheduler != new.scheduler),
        ("health", old.health != new.health),
    ];
    let changed = parts.into_iter().filter(|(_, has_changed)| *has_changed);
    lines.extend(changed.map(|(part, _)| format!("{}: {part} changed", new.name)));

    let is_named = |service: &Service, name: &str| service.backends.iter().any(|it| it.name == name);
    // A name of before that another backend has now is a change of that one's address.
    let renamed = |gone: &Backend| {
        let same = identity::backend_at(new, gone.address);
        same.filter(|same| !is_named(old, &same.name) && !is_named(new, &gone.name))
    };
    for gone in old.backends.iter().filter(|it| !is_named(new, &it.name) && renamed(it).is_none()) {
        lines.push(format!("{}/{}: removed", new.name, gone.name));
    }
    for backend in &new.backends {
        let was = old.backends.iter().find(|it| renamed(it).is_some_and(|it| it.name == backend.name));
        if let Some(was) = was {
            lines.push(format!("{}/{}: renamed to {}", new.name, was.name, backend.name));
        }
        match was.or_else(|| old.backends.iter().find(|old| old.name == backend.name)) {
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
}
