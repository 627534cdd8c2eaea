//! `xlb status`: the daemon's state, for people (one screen) and for monitoring (one line).

mod verdict;

use super::{
    cluster,
    console::Console,
    failure::Failure,
    group, role, service,
    table::{Table, Tone},
    units,
};
use crate::{
    api::client::Client,
    exit::Exit,
    named::Named,
    view::{Announcement, Interface, Node, ServiceSummary, Status},
};

pub async fn show(console: &mut Console<'_>, client: &Client) -> Result<(), Failure> {
    let status = client.status().await?;
    if console.is_json() {
        return console.json(&status);
    }

    console.facts(&facts(&status))?;
    console.line("")?;
    console.table(interfaces(&status.interfaces))?;
    console.line("")?;
    console.table(services(&status.services))?;
    console.section("not on this host (another node has them, or no node does):", &status.node.missing)?;
    console.section("without a primary:", &role::without_primary(&status.roles))?;
    console.section("changed by commands (not in the configuration file):", &status.overlay)?;
    console.section("warnings:", &status.warnings)
}

/// Never fails: what cannot be determined is UNKNOWN.
pub async fn check(console: &mut Console<'_>, client: &Client) -> Result<u8, Failure> {
    let (verdict, status) = match client.status().await {
        Ok(status) => (verdict::of(&status), Some(status)),
        Err(error) => (verdict::unknown(&error), None),
    };
    match status {
        Some(status) if console.is_json() => console.json(&status)?,
        Some(_) | None => console.line(&verdict.line())?,
    }
    Ok(verdict.level as u8)
}

fn facts(status: &Status) -> Vec<(&'static str, String)> {
    let flows = &status.flows;
    let reload = match (&status.last_reload_error, status.last_reload_successful) {
        (None, true) => "successful".to_owned(),
        (Some(error), _) => format!("failed, the previous configuration is in use: {error}"),
        (None, false) => "failed, the previous configuration is in use".to_owned(),
    };
    let announced = status.node.announce.as_ref().map(|it| ("announced", announced(it)));
    let group = status.group.as_ref().map(|group| ("group", group::summary(group)));
    let cluster = status.cluster.as_ref().map(|it| ("cluster", cluster::summary(it)));
    let backends: u32 = status.services.iter().map(|service| service.backends).sum();
    let about = [
        ("version", format!("{}, up {}", status.version, units::age(status.uptime_seconds))),
        ("config", status.config.clone()),
        ("last reload", reload),
        ("node", node(&status.node)),
    ];
    let sizes = [
        (
            "flows",
            format!(
                "{} of {} established, {} of {} half-open, {} closing",
                flows.established, flows.established_max, flows.half_open, flows.half_open_max, flows.closing
            ),
        ),
        ("services", format!("{} of {}", status.services.len(), status.services_max)),
        ("backends", format!("{backends} of {}", status.backends_max)),
        ("slots", format!("{} of {}", status.slots, status.slots_max)),
        ("memory", format!("{} in maps", units::size(status.map_memory_bytes))),
    ];
    about.into_iter().chain(announced).chain(group).chain(cluster).chain(sizes).collect()
}

fn node(node: &Node) -> String {
    let drained = if node.drained { ", drained by the operator" } else { "" };
    format!("{} for {}{drained}", node.state.name(), units::age(node.since_seconds))
}

fn announced(announcement: &Announcement) -> String {
    let Announcement { device, announced, withdrawn } = announcement;
    let count = announced.len();
    match withdrawn.len() {
        0 => format!("{count} of {count} addresses on {device}"),
        left => format!("{count} of {} addresses on {device}, {left} withdrawn", count + left),
    }
}

fn interfaces(interfaces: &[Interface]) -> Table {
    let mut table = Table::new(&["INTERFACE", "MODE", "ATTACHED", "MTU"]);
    for interface in interfaces {
        let (tone, attached) = if interface.attached { (Tone::Plain, "yes") } else { (Tone::Alarm, "no") };
        let cells = [
            interface.name.clone(),
            interface.mode.name().to_owned(),
            attached.to_owned(),
            interface.mtu.to_string(),
        ];
        table.row(tone, cells);
    }
    table
}

fn services(services: &[ServiceSummary]) -> Table {
    let mut table = Table::new(&["SERVICE", "UP", "SERVING", "READY", "STATE"]);
    for it in services {
        let tone = service::tone(it.ready.then_some(it.backends_serving), it.backends_up, it.backends);
        let up = format!("{}/{}", it.backends_up, it.backends);
        let (ready, state) = (service::ready(it.ready).to_owned(), it.state.name().to_owned());
        table.row(tone, [it.name.clone(), up, it.backends_serving.to_string(), ready, state]);
    }
    table
}

// The exit codes of monitoring plugins have their own meaning. Only this one is the same.
const _: () = assert!(verdict::Level::Ok as u8 == Exit::Done as u8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_on_the_device_are_counted() {
        let of = |announced: &[&str], withdrawn: &[&str]| {
            let parse = |all: &[&str]| all.iter().map(|it| it.parse().unwrap()).collect();
            let (announced, withdrawn) = (parse(announced), parse(withdrawn));
            super::announced(&Announcement { device: "lo".into(), announced, withdrawn })
        };

        assert_eq!(of(&["192.0.2.10", "10.0.0.1"], &[]), "2 of 2 addresses on lo");
        assert_eq!(of(&["10.0.0.1"], &["192.0.2.10"]), "1 of 2 addresses on lo, 1 withdrawn");
    }
}
