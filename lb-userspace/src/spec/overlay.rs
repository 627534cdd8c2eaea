//! Changes made by commands on top of the configuration file.
//!
//! An entry records three things about a backend: its definition in the file when the change was made, the definition
//! that the command set instead, and its admin state. They are compared with the present file:
//!
//! | definition in the file | entry | result |
//! |---|---|---|
//! | unchanged | | the change applies: added, removed, other weight |
//! | changed since | | the file applies; the change is dropped and logged |
//! | either | drain or maint | stays until `ready` |
//! | either | same as the file, and ready | dropped |

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use lb_common::limits::MAX_BACKENDS;
use serde::{Deserialize, Serialize};

use super::{
    Backend, BackendName, Service, Spec,
    rules::{self, OwnAddresses, Refusal},
    share_flows,
};
use crate::{named::Named, spec::AdminState};

mod edit;

/// Maximum number of changed backends: all are removed, and as many others are added.
pub const MAX_CHANGES: usize = 2 * MAX_BACKENDS as usize;

/// The changes, by backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    pub(super) entries: BTreeMap<BackendName, Change>,
}

/// What commands changed about one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The definition in the file when the change was made. `None`: there was none.
    pub file: Option<Definition>,
    /// The definition set by commands. `None`: removed.
    #[serde(rename = "wish")]
    pub command: Option<Definition>,
    pub admin_state: AdminState,
}

/// The definition of a backend in the file or by a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub address: SocketAddr,
    pub weight: u32,
    pub backup: bool,
    /// Left out if there is no limit, as by versions that have none.
    #[serde(default, skip_serializing_if = "is_unlimited")]
    pub max_flows: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_unlimited(max_flows: &u32) -> bool {
    *max_flows == 0
}

/// The result of applying the overlay to the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The effective spec.
    pub spec: Spec,
    /// Backends that are not ready.
    pub admin_states: BTreeMap<BackendName, AdminState>,
    /// The overlay without changes that the file overrides. This is to be saved.
    pub overlay: Overlay,
    /// Changes that the file overrides, to be logged once.
    pub log: Vec<String>,
    /// Changes that are kept but cannot be applied, and why: for the log and the status, while that is so.
    pub warnings: Vec<String>,
}

impl Overlay {
    /// Applies the changes to the file.
    pub fn apply(&self, file: &Spec) -> Applied {
        let places = Places::of(self, file);
        let (overlay, log) = self.settled_at(file, &places);
        let mut spec = file.clone();
        let mut warnings = Vec::new();

        // Removals and moves come first, to make room for additions.
        for (name, change) in overlay.changes() {
            let Some(place) = places.of_service(name) else { continue };
            spec.services[place].replace(name, change.command.filter(|_| change.keeps_address()));
        }
        let additions: Vec<_> =
            overlay.changes().filter(|(_, it)| it.command.is_some() && !it.keeps_address()).collect();
        let own = if additions.is_empty() { OwnAddresses::default() } else { OwnAddresses::of(&spec) };
        for (name, change) in additions {
            let Some(command) = change.command else { continue };
            let place = places.of_service(name);
            let Err(reason) = spec.put(name, place, command, &own) else { continue };
            warnings.push(format!("{name}: `{}` is not applied: {reason}", change.describe_command()));
            // The definition in the file is better than none.
            if let Some(Err(reason)) = change.file.map(|file| spec.put(name, place, file, &own)) {
                warnings.push(format!(
                    "{name}: the definition in the configuration file is not applied either: {reason}"
                ));
            }
        }
        spec.keep_the_order_of(file);

        let admin_states = overlay.admin_states(&spec, &places);
        Applied { spec, admin_states, overlay, log, warnings }
    }

    /// Differences between file and overlay: `web/web-1: drain`.
    pub fn differences(&self) -> Vec<String> {
        self.entries.iter().map(|(name, change)| format!("{name}: {}", change.describe())).collect()
    }

    /// The overlay without changes that the file overrides, and log lines about those.
    fn settled(&self, file: &Spec) -> (Self, Vec<String>) {
        self.settled_at(file, &Places::of(self, file))
    }

    fn settled_at(&self, file: &Spec, places: &Places) -> (Self, Vec<String>) {
        let mut settled = Self::default();
        let mut log = Vec::new();
        for (name, change) in &self.entries {
            let own = file.definition_at(places.of_service(name), name);
            let mut change = change.clone();
            if own != change.file {
                log.extend(change.overruled(own).map(|line| format!("{name}: {line}")));
                (change.file, change.command) = (own, own);
            }
            settled.keep(name, change);
        }
        (settled, log)
    }

    /// Keeps an entry if it differs from the file.
    fn keep(&mut self, name: &BackendName, change: Change) {
        if change.is_nothing() {
            self.entries.remove(name);
        } else {
            self.entries.insert(name.clone(), change);
        }
    }

    /// The entry of a backend, or one without changes.
    fn change_of(&self, name: &BackendName, file: &Spec) -> Change {
        let own = file.definition(name);
        let unchanged = Change { file: own, command: own, admin_state: AdminState::Ready };
        self.entries.get(name).cloned().unwrap_or(unchanged)
    }

    /// Entries whose definition differs from the file's.
    fn changes(&self) -> impl Iterator<Item = (&BackendName, &Change)> {
        self.entries.iter().filter(|(_, change)| change.command != change.file)
    }

    fn admin_states(&self, spec: &Spec, places: &Places) -> BTreeMap<BackendName, AdminState> {
        let not_ready = self.entries.iter().filter(|(name, change)| {
            change.admin_state != AdminState::Ready
                && spec.definition_at(places.of_service(name), name).is_some()
        });
        not_ready.map(|(name, change)| (name.clone(), change.admin_state)).collect()
    }
}

impl Change {
    fn is_nothing(&self) -> bool {
        self.command == self.file && self.admin_state == AdminState::Ready
    }

    /// Does the change keep the address that the file defines?
    fn keeps_address(&self) -> bool {
        self.command.zip(self.file).is_some_and(|(command, file)| command.address == file.address)
    }

    /// The change that is dropped because the file has changed. `None` if there was none, or the file has the
    /// same.
    fn overruled(&self, own: Option<Definition>) -> Option<String> {
        if self.command == self.file || self.command == own {
            return None;
        }
        let today = match (self.file, own) {
            (_, None) => "no longer in the configuration file",
            (None, Some(_)) => "now defined in the configuration file",
            (Some(_), Some(_)) => "changed in the configuration file",
        };
        Some(format!("{today}: the command's change `{}` is dropped", self.describe_command()))
    }

    fn describe(&self) -> String {
        let state = self.admin_state.name();
        match (self.command == self.file, self.admin_state) {
            (true, _) if self.file.is_none() => format!("{state} (no longer in the configuration file)"),
            (true, _) => state.to_owned(),
            (false, AdminState::Ready) => self.describe_command(),
            (false, AdminState::Drain | AdminState::Maint) => format!("{}, {state}", self.describe_command()),
        }
    }

    fn describe_command(&self) -> String {
        match self.command {
            None => "removed".to_owned(),
            Some(command) => command.describe_beside(self.file),
        }
    }
}

impl Definition {
    fn describe_beside(self, file: Option<Self>) -> String {
        let Some(file) = file else {
            let backup = if self.backup { ", backup" } else { "" };
            let limit =
                if self.max_flows == 0 { String::new() } else { format!(", max_flows {}", self.max_flows) };
            return format!("added, {} weight {}{backup}{limit}", self.address, self.weight);
        };
        let mut parts = Vec::new();
        if self.address != file.address {
            parts.push(format!("address {} (file: {})", self.address, file.address));
        }
        if self.weight != file.weight {
            parts.push(format!("weight {} (file: {})", self.weight, file.weight));
        }
        if self.backup != file.backup {
            parts.push(format!("backup {} (file: {})", self.backup, file.backup));
        }
        if self.max_flows != file.max_flows {
            parts.push(format!("max_flows {} (file: {})", self.max_flows, file.max_flows));
        }
        parts.join(", ")
    }

    fn named(self, name: &str) -> Backend {
        let Self { address, weight, backup, max_flows } = self;
        Backend { name: name.to_owned(), address, weight, backup, max_flows }
    }
}

impl From<&Backend> for Definition {
    fn from(backend: &Backend) -> Self {
        let Backend { name: _, address, weight, backup, max_flows } = *backend;
        Self { address, weight, backup, max_flows }
    }
}

/// Positions, in the file, of the services that an overlay mentions. A spec made from the file has its services in the
/// same order.
struct Places(BTreeMap<String, usize>);

impl Places {
    fn of(overlay: &Overlay, file: &Spec) -> Self {
        let meant: BTreeSet<&str> = overlay.entries.keys().map(|name| name.service.as_str()).collect();
        let all = file.services.iter().enumerate();
        let found = all.filter(|(_, service)| meant.contains(service.name.as_str()));
        Self(found.map(|(place, service)| (service.name.clone(), place)).collect())
    }

    fn of_service(&self, backend: &BackendName) -> Option<usize> {
        self.0.get(&backend.service).copied()
    }
}

impl Spec {
    fn place(&self, service: &str) -> Option<usize> {
        self.services.iter().position(|it| it.name == service)
    }

    fn definition(&self, name: &BackendName) -> Option<Definition> {
        self.definition_at(self.place(&name.service), name)
    }

    /// The definition of a backend, whose service has this place.
    fn definition_at(&self, place: Option<usize>, name: &BackendName) -> Option<Definition> {
        let service = &self.services[place?];
        service.backends.iter().find(|backend| backend.name == name.backend).map(Definition::from)
    }

    /// Adds a backend to the service with this place if the rules allow it.
    fn put(
        &mut self,
        name: &BackendName,
        place: Option<usize>,
        definition: Definition,
        own: &OwnAddresses,
    ) -> Result<(), Refusal> {
        own.refuse(definition.address)?;
        rules::fit_in_all(self)?;
        let gone = || Refusal::NoService(name.service.clone());
        let place = place.ok_or_else(gone)?;
        share_flows::fit(&self.services, place, definition.address)?;
        let service = &mut self.services[place];
        let holder = service.backends.iter().find(|it| it.address == definition.address);
        rules::fit(service, definition.address, holder.map(|it| it.name.as_str()))?;
        service.backends.push(definition.named(&name.backend));
        Ok(())
    }

    /// Backends in the order of the file, then those that it does not have, by name.
    fn keep_the_order_of(&mut self, file: &Self) {
        let pairs = self.services.iter_mut().zip(&file.services);
        for (service, written) in pairs.filter(|(service, written)| !service.is_same(written)) {
            let place: BTreeMap<&str, usize> =
                written.backends.iter().enumerate().map(|(place, it)| (it.name.as_str(), place)).collect();
            let key = |it: &Backend| place.get(it.name.as_str()).copied().unwrap_or(usize::MAX);
            service.backends.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name)));
        }
    }
}

impl Service {
    /// Replaces or removes the definition of a backend.
    fn replace(&mut self, name: &BackendName, definition: Option<Definition>) {
        match definition {
            None => self.backends.retain(|backend| backend.name != name.backend),
            Some(it) => {
                let named = self.backends.iter_mut().filter(|backend| backend.name == name.backend);
                named.for_each(|backend| *backend = it.named(&name.backend));
            }
        }
    }
}

#[cfg(test)]
mod tests;
