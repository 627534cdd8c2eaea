//! `xlb backend`: the servers behind services, and the operator's changes.

mod drain;

use std::collections::BTreeMap;

use super::{args::BackendVerb, console::Console, failure::Failure, table::Table, table::Tone, units};
use crate::{
    api::client::Client,
    named::Named,
    spec::{AdminState, BackendName, BackendPatch, NewBackend},
    view::{Backend, Health, HealthState},
};

pub async fn backend(console: &mut Console<'_>, client: &Client, verb: BackendVerb) -> Result<(), Failure> {
    match verb {
        BackendVerb::List { service } => list(console, client, service.as_deref()).await,
        BackendVerb::Show { name } => show(console, client, &name).await,
        BackendVerb::Add { name, address, weight, backup, max_flows } => {
            let added = client.add(&name, &NewBackend { address, weight, backup, max_flows }).await?;
            let kind = if added.backup { ", backup" } else { "" };
            let what = format!("added: {}, weight {}{kind}", added.address, added.weight);
            report(console, &name, Some(&added), &what)
        }
        BackendVerb::Remove { name } => {
            client.remove(&name).await?;
            console.say(&format!("{name}: removed"))
        }
        BackendVerb::Ready { name } => set_state(console, client, &name, AdminState::Ready).await.map(drop),
        BackendVerb::Maint { name } => set_state(console, client, &name, AdminState::Maint).await.map(drop),
        BackendVerb::Drain { name, wait } => {
            let backend = set_state(console, client, &name, AdminState::Drain).await?;
            match (backend, wait) {
                (Some(backend), Some(at_most)) => drain::wait(console, client, &name, backend, at_most).await,
                // Without a backend there are no flows to wait for.
                (_, None) | (None, Some(_)) => Ok(()),
            }
        }
        BackendVerb::Weight { name, weight } => {
            let patch = BackendPatch { weight: Some(weight), ..BackendPatch::default() };
            let changed = client.change(&name, &patch).await?;
            report(console, &name, changed.as_ref(), &format!("weight {weight}"))
        }
        BackendVerb::Backup { name, backup } => {
            let patch = BackendPatch { backup: Some(backup), ..BackendPatch::default() };
            let changed = client.change(&name, &patch).await?;
            let what = if backup {
                "backup (used only if no regular backend can take new flows)"
            } else {
                "a regular backend"
            };
            report(console, &name, changed.as_ref(), what)
        }
    }
}

async fn list(console: &mut Console<'_>, client: &Client, service: Option<&str>) -> Result<(), Failure> {
    let backends = match service {
        Some(service) => client.backends_of(service).await?,
        None => client.all_backends().await?,
    };
    let table =
        if console.is_wide() { wide_table(&backends, &client.health().await?) } else { table(&backends) };
    console.list(&backends, table)
}

async fn show(console: &mut Console<'_>, client: &Client, name: &BackendName) -> Result<(), Failure> {
    let backend = client.backend(name).await?;
    if console.is_json() {
        return console.json(&backend);
    }

    let mut facts = vec![
        ("backend", name_of(&backend)),
        ("address", backend.address.to_string()),
        ("weight", backend.weight.to_string()),
        ("effective weight", backend.effective_weight.to_string()),
        ("backup", yes(backend.backup)),
        ("max flows", limit(backend.max_flows)),
        ("admin state", backend.admin_state.name().to_owned()),
        ("health", health_of(&backend)),
        ("flows", backend.flows.to_string()),
    ];
    if let Some(state) = state_of(&backend, &client.health().await?) {
        facts.push(("since", units::age(state.since_seconds)));
        facts.push(("check", state.check.name().to_owned()));
        facts.push(("last check", last_of(state)));
    }
    console.facts(&facts)
}

fn limit(max_flows: u32) -> String {
    if max_flows == 0 { "no limit".to_owned() } else { max_flows.to_string() }
}

async fn set_state(
    console: &mut Console<'_>,
    client: &Client,
    name: &BackendName,
    state: AdminState,
) -> Result<Option<Backend>, Failure> {
    let patch = BackendPatch { admin_state: Some(state), ..BackendPatch::default() };
    let changed = client.change(name, &patch).await?;
    let what = match state {
        AdminState::Ready => "ready",
        AdminState::Drain => "drain (no new flows)",
        AdminState::Maint => "maint (no flows)",
    };
    report(console, name, changed.as_ref(), what)?;
    Ok(changed)
}

/// Reports the change, and prints the changed backend with `-o json`.
fn report(
    console: &mut Console<'_>,
    name: &BackendName,
    backend: Option<&Backend>,
    what: &str,
) -> Result<(), Failure> {
    let gone =
        if backend.is_none() { "; it is no longer in the configuration file, so it was removed" } else { "" };
    console.say(&format!("{name}: {what}{gone}"))?;
    if console.is_json() { console.json(&backend) } else { Ok(()) }
}

pub fn table(backends: &[Backend]) -> Table {
    let mut table = Table::new(&["BACKEND", "ADDRESS", "WEIGHT", "HEALTH", "ADMIN", "FLOWS"]);
    for backend in backends {
        table.row(tone(backend), cells(backend));
    }
    table
}

fn wide_table(backends: &[Backend], health: &[HealthState]) -> Table {
    let mut table = Table::new(&[
        "BACKEND",
        "ADDRESS",
        "WEIGHT",
        "HEALTH",
        "ADMIN",
        "FLOWS",
        "EFFECTIVE",
        "BACKUP",
        "CHECK",
        "SINCE",
        "LAST",
    ]);
    let states: BTreeMap<_, _> = health.iter().map(|state| ((&state.service, &state.name), state)).collect();
    for backend in backends {
        let unknown = || "-".to_owned();
        let state = states.get(&(&backend.service, &backend.name));
        let checked = [
            backend.effective_weight.to_string(),
            yes(backend.backup),
            state.map_or_else(unknown, |state| state.check.name().to_owned()),
            state.map_or_else(unknown, |state| units::age(state.since_seconds)),
            state.map_or_else(unknown, |state| last_of(state)),
        ];
        table.row(tone(backend), cells(backend).into_iter().chain(checked));
    }
    table
}

fn cells(backend: &Backend) -> [String; 6] {
    [
        name_of(backend),
        backend.address.to_string(),
        backend.weight.to_string(),
        health_of(backend),
        backend.admin_state.name().to_owned(),
        backend.flows.to_string(),
    ]
}

fn tone(backend: &Backend) -> Tone {
    match (backend.health, backend.admin_state) {
        (Health::Down, _) => Tone::Alarm,
        (Health::Up, AdminState::Ready) if backend.ejected => Tone::Warning,
        (Health::Up, AdminState::Ready) => Tone::Plain,
        (Health::Up, AdminState::Drain | AdminState::Maint) | (Health::Unknown, _) => Tone::Warning,
    }
}

fn health_of(backend: &Backend) -> String {
    let ejected = if backend.ejected { ", ejected" } else { "" };
    format!("{}{ejected}", backend.health.name())
}

fn name_of(backend: &Backend) -> String {
    format!("{}/{}", backend.service, backend.name)
}

fn state_of<'a>(backend: &Backend, health: &'a [HealthState]) -> Option<&'a HealthState> {
    health.iter().find(|state| state.service == backend.service && state.name == backend.name)
}

/// The result of the last check.
pub fn last_of(state: &HealthState) -> String {
    state.last.as_ref().map_or_else(|| "-".to_owned(), |last| last.detail.clone())
}

fn yes(fact: bool) -> String {
    if fact { "yes" } else { "no" }.to_owned()
}
