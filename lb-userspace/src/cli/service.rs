//! `xlb service`: services and their backends.

use super::{args::ServiceVerb, backend, console::Console, failure::Failure, table::Table, table::Tone};
use crate::{api::client::Client, named::Named, view::Service};

pub async fn service(console: &mut Console<'_>, client: &Client, verb: ServiceVerb) -> Result<(), Failure> {
    match verb {
        ServiceVerb::List => list(console, client).await,
        ServiceVerb::Show { name } => show(console, client, &name).await,
    }
}

async fn list(console: &mut Console<'_>, client: &Client) -> Result<(), Failure> {
    let services = client.services().await?;

    let mut header = vec!["NAME", "LISTEN", "PROTOCOL", "MODE", "UP", "SERVING", "READY", "STATE", "FLOWS"];
    if console.is_wide() {
        header.extend(["QUORUM", "SCHEDULER", "SOURCE"]);
    }
    let mut table = Table::new(&header);
    for service in &services {
        let mut cells = vec![
            service.name.clone(),
            joined(&service.listen),
            service.protocol.name().to_owned(),
            service.mode.name().to_owned(),
            format!("{}/{}", service.backends_up, service.backends),
            service.backends_serving.to_string(),
            ready(service.ready).to_owned(),
            service.state.name().to_owned(),
            service.flows.to_string(),
        ];
        if console.is_wide() {
            let quorum = service.quorum.to_string();
            cells.extend([quorum, service.scheduler.name().to_owned(), joined(&service.source)]);
        }
        let serving = service.ready.then_some(service.backends_serving);
        table.row(tone(serving, service.backends_up, service.backends), cells);
    }
    console.list(&services, table)
}

async fn show(console: &mut Console<'_>, client: &Client, name: &str) -> Result<(), Failure> {
    let service = client.service(name).await?;
    if console.is_json() {
        return console.json(&service);
    }

    let backends = client.backends_of(name).await?;
    console.facts(&facts(&service))?;
    console.line("")?;
    console.table(backend::table(&backends))
}

fn facts(service: &Service) -> Vec<(&'static str, String)> {
    let up =
        format!("{} of {} up, {} serving", service.backends_up, service.backends, service.backends_serving);
    vec![
        ("service", service.name.clone()),
        ("listen", joined(&service.listen)),
        ("protocol", service.protocol.name().to_owned()),
        ("mode", service.mode.name().to_owned()),
        ("source", joined(&service.source)),
        ("peer_source", joined(&service.peer_source)),
        ("scheduler", service.scheduler.name().to_owned()),
        ("reject", service.reject.name().to_owned()),
        ("share_flows", service.share_flows.name().to_owned()),
        ("on_refused", service.on_refused.name().to_owned()),
        ("on_down", service.on_down.name().to_owned()),
        ("slow_start", format!("{} s", service.slow_start_seconds)),
        ("panic_threshold", format!("{} %", service.panic_threshold_percent)),
        ("backends", up),
        (
            "ready",
            format!(
                "{} ({} available, quorum {})",
                ready(service.ready),
                service.backends_available,
                service.quorum
            ),
        ),
        ("state", service.state.name().to_owned()),
        ("flows", service.flows.to_string()),
    ]
}

/// Colour by the number of backends that are up. `serving`: how many get new flows; `None` if the service is not ready.
pub fn tone(serving: Option<u32>, up: u32, all: u32) -> Tone {
    match (serving, up == all) {
        (None | Some(0), _) => Tone::Alarm,
        (Some(_), false) => Tone::Warning,
        (Some(_), true) => Tone::Plain,
    }
}

/// In tables.
pub const fn ready(fact: bool) -> &'static str {
    if fact { "yes" } else { "no" }
}

/// An empty list is shown as "-", so that every row has the same number of columns.
fn joined(list: &[impl ToString]) -> String {
    if list.is_empty() {
        return "-".to_owned();
    }
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
