//! `xlb health`: the health of backends, and their checks.

use super::{
    args::HealthVerb, backend::last_of, console::Console, failure::Failure, table::Table, table::Tone, units,
};
use crate::{
    api::client::Client,
    exit::Exit,
    named::Named,
    probe::ProbeOutcome,
    spec::BackendName,
    view::{Health, HealthState},
};

pub async fn health(console: &mut Console<'_>, client: &Client, verb: HealthVerb) -> Result<(), Failure> {
    match verb {
        HealthVerb::List { failed } => {
            let mut states = client.health().await?;
            if failed {
                states.retain(has_failed);
            }
            let table = table(&states, console.is_wide());
            console.list(&states, table)
        }
        HealthVerb::Probe { name } => probe(console, client, &name).await,
    }
}

async fn probe(console: &mut Console<'_>, client: &Client, name: &BackendName) -> Result<(), Failure> {
    let result = client.probe(name).await?;
    let took = units::measured(result.duration_seconds);
    if console.is_json() {
        console.json(&result)?;
    } else {
        let mut table = Table::new(&["BACKEND", "RESULT", "DETAIL", "DURATION"]);
        let tone = if result.result == ProbeOutcome::Success { Tone::Plain } else { Tone::Alarm };
        table.row(tone, [name.to_string(), result.result.name().to_owned(), result.detail.clone(), took]);
        console.table(table)?;
    }
    match result.result {
        ProbeOutcome::Success => Ok(()),
        ProbeOutcome::Failure | ProbeOutcome::Timeout => {
            Err(Failure::new(Exit::Failed, format!("{name}: the check failed")))
        }
        ProbeOutcome::Undecided => {
            Err(Failure::new(Exit::Failed, format!("{name}: the check decided nothing")))
        }
    }
}

fn has_failed(state: &HealthState) -> bool {
    state.health == Health::Down
        || state.last.as_ref().is_some_and(|last| last.result != ProbeOutcome::Success)
}

fn table(states: &[HealthState], is_wide: bool) -> Table {
    let mut header = vec!["BACKEND", "CHECK", "HEALTH", "SINCE", "LAST"];
    if is_wide {
        header.extend(["ADDRESS", "DURATION"]);
    }
    let mut table = Table::new(&header);
    for state in states {
        let mut cells = vec![
            format!("{}/{}", state.service, state.name),
            state.check.name().to_owned(),
            state.health.name().to_owned(),
            units::age(state.since_seconds),
            last_of(state),
        ];
        if is_wide {
            let took = state.last.as_ref().map(|last| units::measured(last.duration_seconds));
            cells.extend([state.address.to_string(), took.unwrap_or_else(|| "-".to_owned())]);
        }
        table.row(tone(state), cells);
    }
    table
}

fn tone(state: &HealthState) -> Tone {
    match state.health {
        Health::Down => Tone::Alarm,
        Health::Up if !has_failed(state) => Tone::Plain,
        Health::Up | Health::Unknown => Tone::Warning,
    }
}
