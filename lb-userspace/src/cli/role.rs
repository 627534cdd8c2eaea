//! `xlb role`: which database server is the primary of a service, and fences.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{args::RoleVerb, console::Console, failure::Failure, table::Table, table::Tone, units};
use crate::{
    api::client::{Client, Error},
    duration,
    exit::Exit,
    named::Named,
    probe::Role,
    view::{PrimaryState, ServerRole, ServiceRole},
};

/// How often a newer primary is looked for.
const PAUSE: Duration = Duration::from_millis(100);

pub async fn role(console: &mut Console<'_>, client: &Client, verb: RoleVerb) -> Result<(), Failure> {
    match verb {
        RoleVerb::List => {
            let services = client.roles().await?;
            let table = table(&services, console.is_wide());
            console.list(&services, table)?;
            without_primary(&services).iter().try_for_each(|line| console.say(line))
        }
        RoleVerb::Fence { service, wait } => {
            let fenced = client.fence(&service).await?;
            if fenced.fenced {
                console.say(&format!(
                    "{service}: fenced: no flow is left, and none begins until there is a newer primary"
                ))?;
            } else {
                console.say(&format!("{service}: {}", state(&fenced)))?;
            }
            match wait {
                Some(at_most) => wait_for_primary(console, client, fenced, at_most).await,
                None => Ok(()),
            }
        }
        RoleVerb::Unfence { service } => {
            let before = known(client, &service).await?;
            let role = client.unfence(&service).await?;
            let done =
                if before.is_some_and(|it| it.fenced) { "the fence is ended" } else { "it is not fenced" };
            console.say(&format!("{service}: {done}: {}", state(&role)))
        }
        RoleVerb::Force { name } => {
            let before = known(client, &name.service).await?;
            let role = client.force(&name).await?;
            before.map_or(Ok(()), |before| overruled(console, &before, &name.backend))?;
            console.say(&format!("{}: {}", name.service, state(&role)))
        }
    }
}

async fn known(client: &Client, service: &str) -> Result<Option<ServiceRole>, Failure> {
    Ok(client.roles().await?.into_iter().find(|it| it.service == service))
}

/// What an operator who makes a server the primary must know.
fn overruled(console: &mut Console<'_>, before: &ServiceRole, backend: &str) -> Result<(), Failure> {
    if before.fenced {
        console.say(&format!("warning: the fence of {} is ended", before.service))?;
    }
    let server = before.servers.iter().find(|it| it.name == backend);
    match server.and_then(|it| it.reason.as_deref()) {
        Some(reason @ ("outdated" | "of another cluster")) => {
            let mark = server.and_then(|it| it.mark.as_deref()).unwrap_or("no mark");
            console.say(&format!(
                "warning: {backend} is {reason} ({mark}): writes that the last primary took are not on it"
            ))
        }
        Some(_) | None => Ok(()),
    }
}

async fn wait_for_primary(
    console: &mut Console<'_>,
    client: &Client,
    mut role: ServiceRole,
    at_most: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + at_most;
    while role.state != PrimaryState::Elected {
        if Instant::now() >= deadline {
            let message = format!("{}: no newer primary after {}", role.service, duration::show(at_most));
            let hint = format!("it stays fenced; `xlb role unfence {}` ends that", role.service);
            return Err(Failure::new(Exit::Failed, message).hint(hint));
        }
        sleep(PAUSE).await;
        role = match client.roles().await {
            Ok(roles) => roles.into_iter().find(|it| it.service == role.service).unwrap_or(role),
            // A busy daemon may answer the next request.
            Err(Error::TimedOut { .. }) if Instant::now() < deadline => role,
            Err(error) => return Err(error.into()),
        };
    }
    console.say(&format!("{}: {}", role.service, state(&role)))
}

/// "the primary is pg-2", or why there is none.
pub fn state(role: &ServiceRole) -> String {
    match (&role.primary, role.state) {
        (Some(primary), _) => format!("the primary is {primary}"),
        (None, state) => format!("no primary for {}: {}", units::age(role.since_seconds), words(state)),
    }
}

/// A line for each service that has no primary, with what each server says.
pub fn without_primary(roles: &[ServiceRole]) -> Vec<String> {
    let vacant = roles.iter().filter(|it| it.role == Role::Primary && it.state != PrimaryState::Elected);
    let line = |role: &ServiceRole| {
        let servers: Vec<_> = role.servers.iter().map(says).collect();
        format!("{}: {} ({})", role.service, state(role), servers.join("; "))
    };
    vacant.map(line).collect()
}

fn says(server: &ServerRole) -> String {
    let role = server.role.map_or("unknown", Named::name);
    let mark = server.mark.as_ref().map_or_else(String::new, |mark| format!(", {mark}"));
    match &server.reason {
        Some(reason) if reason != role => format!("{}: {role}{mark}, {reason}", server.name),
        Some(_) | None => format!("{}: {role}{mark}", server.name),
    }
}

const fn words(state: PrimaryState) -> &'static str {
    match state {
        PrimaryState::Elected => "elected",
        PrimaryState::Unknown => "not all servers have answered yet",
        PrimaryState::NoClaim => "no server says primary",
        PrimaryState::NotSteady => "a server says primary, but not often enough in a row yet",
        PrimaryState::Refused => "those that say primary are outdated, or of another cluster",
        PrimaryState::Fenced => "fenced by the operator",
        PrimaryState::Contested => "several servers say primary, and none is newer",
    }
}

fn table(services: &[ServiceRole], is_wide: bool) -> Table {
    let mut header = vec!["BACKEND", "NEEDS", "ROLE", "SERVES", "LAG", "MARK"];
    if is_wide {
        header.extend(["HEALTH", "BYTES BEHIND", "ADDRESS"]);
    }
    let mut table = Table::new(&header);
    for service in services {
        for server in &service.servers {
            let dash = || "-".to_owned();
            let serves = match &server.reason {
                None if server.is_backup => "as a backup".to_owned(),
                None => "yes".to_owned(),
                Some(reason) => format!("no: {reason}"),
            };
            let lag = server.lag_ms.filter(|_| server.role != Some(Role::Primary));
            let mut cells = vec![
                format!("{}/{}", service.service, server.name),
                service.role.name().to_owned(),
                server.role.map_or("unknown", Named::name).to_owned(),
                serves,
                lag.map_or_else(dash, |lag| units::measured(lag as f64 / 1000.0)),
                server.mark.clone().unwrap_or_else(dash),
            ];
            if is_wide {
                let bytes = server.lag_bytes.map_or_else(dash, |bytes| bytes.to_string());
                cells.extend([server.health.name().to_owned(), bytes, server.address.to_string()]);
            }
            table.row(tone(service, server), cells);
        }
    }
    table
}

fn tone(service: &ServiceRole, server: &ServerRole) -> Tone {
    match (service.role, service.state) {
        (Role::Primary, PrimaryState::Elected) | (Role::Replica, _) if server.role.is_some() => Tone::Plain,
        (Role::Primary, PrimaryState::Unknown | PrimaryState::Elected) | (Role::Replica, _) => Tone::Warning,
        (
            Role::Primary,
            PrimaryState::NoClaim
            | PrimaryState::NotSteady
            | PrimaryState::Refused
            | PrimaryState::Fenced
            | PrimaryState::Contested,
        ) => Tone::Alarm,
    }
}
