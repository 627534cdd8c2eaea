//! `xlb ha check`: what would make a take-over between nodes fail, or break connections.
//!
//! The facts of the host, the file and the daemon are read first. Each check then judges them, without input or output.
//! A check is a function and its line in [`CHECKS`].

mod arp;
mod daemon;
mod ecmp;
mod group;
mod keepalived;
mod rp_filter;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    api::client::Client,
    cli::{Host, console::Console, failure::Failure},
    exit::Exit,
    interface_address::InterfaceAddress,
    interface_settings::InterfaceSettings,
    named::{Named as _, json_by_name, named},
    spec::Spec,
    text::printable,
    track_file::TrackFile,
    view::{self, Status},
};

type Check = fn(&Facts) -> Judgement;

/// In the order in which findings are printed.
const CHECKS: [(&str, Check); 15] = [
    ("daemon", daemon::reachable),
    ("interfaces", daemon::attached),
    ("drain", daemon::drained),
    ("arp", arp::quiet),
    ("rp_filter", rp_filter::lenient),
    ("keepalived", keepalived::follows),
    ("group", group::configured),
    ("peers", group::connected),
    ("services", group::same_services),
    ("hash_key", group::same_hash_key),
    ("source_ports", group::other_ports),
    ("clocks", group::same_clock),
    ("skipped_flows", group::takes_flows),
    ("ecmp", ecmp::shared),
    ("sources", ecmp::of_peers),
];

/// What the checks judge.
struct Facts {
    spec: Spec,
    networks: Vec<InterfaceAddress>,
    /// Of the interfaces in the file that this host has.
    settings: Vec<InterfaceSettings>,
    /// The configuration of keepalived. `None`: there is none. An error says why it is not known.
    keepalived: Result<Option<String>, String>,
    /// The track file of this daemon.
    track_file: PathBuf,
    /// What the daemon says, or what to do about a daemon that does not answer.
    status: Result<Status, Finding>,
}

impl Facts {
    async fn read(client: &Client, spec: Spec, host: Host) -> anyhow::Result<Self> {
        let settings = spec.interfaces.iter().map(|it| (host.settings)(&it.name));
        Ok(Self {
            settings: settings.filter_map(Result::transpose).collect::<Result<_, _>>()?,
            networks: (host.networks)()?,
            keepalived: (host.keepalived)(),
            track_file: TrackFile::beside(client.socket()).path().to_owned(),
            status: client.status().await.map_err(|error| {
                let failure = Failure::from(error);
                Finding::error(failure.message(), failure.remedy().unwrap_or("see the daemon's log"))
            }),
            spec,
        })
    }

    /// The running daemon's group.
    fn group(&self) -> Option<&view::Group> {
        self.status.as_ref().ok()?.group.as_ref()
    }
}

/// What a check finds.
enum Judgement {
    /// All is well: why.
    Passed(String),
    /// At least one thing is not.
    Found(Vec<Finding>),
    /// It does not apply, or depends on an answer that is missing. Another check says which.
    Silent,
}

impl Judgement {
    fn of(findings: Vec<Finding>, otherwise: impl Into<String>) -> Self {
        if findings.is_empty() { Self::Passed(otherwise.into()) } else { Self::Found(findings) }
    }
}

/// Something to look at.
#[derive(Clone, Debug)]
struct Finding {
    level: Level,
    message: String,
    hint: String,
}

impl Finding {
    fn warning(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level: Level::Warning, message: message.into(), hint: hint.into() }
    }

    fn error(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level: Level::Error, message: message.into(), hint: hint.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Error,
}

named!(Level { Ok = "ok", Warning = "warning", Error = "error", });
json_by_name!(Level);

/// An element of the JSON output. Its shape does not change.
#[derive(Debug, Serialize)]
struct Line {
    level: Level,
    /// The name of the check.
    check: &'static str,
    message: String,
    /// What to do. `null`: nothing.
    hint: Option<String>,
}

impl Line {
    fn text(&self) -> String {
        let hint = self.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
        printable(&format!("{}: {}: {}{hint}", self.level.name(), self.check, self.message))
    }
}

/// Prints findings, or what was checked if there are none.
pub async fn check(
    console: &mut Console<'_>,
    client: &Client,
    spec: Spec,
    host: Host,
) -> Result<u8, Failure> {
    let lines = judge(&Facts::read(client, spec, host).await?);
    let has_findings = lines.iter().any(|line| line.level != Level::Ok);
    if console.is_json() {
        console.json(&lines)?;
    } else {
        let shown = lines.iter().filter(|line| !has_findings || line.level != Level::Ok);
        shown.map(Line::text).try_for_each(|line| console.line(&line))?;
    }
    Ok(if has_findings { Exit::Failed } else { Exit::Done }.code())
}

fn judge(facts: &Facts) -> Vec<Line> {
    CHECKS.iter().flat_map(|(check, judge)| lines(check, judge(facts))).collect()
}

fn lines(check: &'static str, judgement: Judgement) -> Vec<Line> {
    match judgement {
        Judgement::Silent => Vec::new(),
        Judgement::Passed(message) => vec![Line { level: Level::Ok, check, message, hint: None }],
        Judgement::Found(findings) => {
            let line = |Finding { level, message, hint }| Line { level, check, message, hint: Some(hint) };
            findings.into_iter().map(line).collect()
        }
    }
}

/// How to change settings of an interface, each with its value: they are under `net.ipv4.conf`.
fn sysctl(interface: &str, settings: &[(&str, u8)]) -> String {
    // sysctl(8): a `.` in the name of an interface is written as `/`.
    let interface = interface.replace('.', "/");
    let settings = settings.iter().map(|(name, value)| format!(" net.ipv4.conf.{interface}.{name}={value}"));
    format!("sysctl -w{}, and keep that in /etc/sysctl.d", settings.collect::<String>())
}
