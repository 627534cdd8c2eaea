//! `xlb check`: validates a file, offline.

use std::{collections::BTreeSet, path::Path};

use serde::Serialize;

use super::{console::Console, failure::Failure};
use crate::{
    datapath::shapes::memory::Memory,
    exit::Exit,
    spec::{Mistake, Spec, source_ports::SourcePorts},
    text::counted,
};

/// A valid file.
#[derive(Debug)]
pub struct Checked {
    /// The validated file.
    pub spec: Spec,
    /// The same with the services of the cluster that are in force on this host. `None`: there are none.
    pub in_force: Option<Spec>,
    /// The memory that its maps take.
    pub memory: Memory,
    /// The number of flows that its source ports allow, by service.
    pub ports: SourcePorts,
    /// What it needs and this host lacks. Another host may have it.
    pub warnings: Vec<String>,
}

impl Checked {
    /// With the services of the cluster, if this host has any.
    pub fn into_force(self) -> Spec {
        self.in_force.unwrap_or(self.spec)
    }
}

pub(super) fn check(
    console: &mut Console<'_>,
    file: &Path,
    read: fn(&Path) -> Result<Checked, Failure>,
) -> Result<u8, Failure> {
    let outcome = read(file);
    if console.is_json()
        && let Some(report) = Report::of(file, &outcome)
    {
        console.json(&report)?;
        return outcome.map(|_good| Exit::Done.code());
    }

    let checked = outcome?;
    console.line(&format!("{} is valid: {}", file.display(), summary(&checked.spec)))?;
    console.line(&checked.memory.to_string())?;
    console.line(&checked.ports.to_string())?;
    if let Some(in_force) = checked.in_force.filter(|it| it.services != checked.spec.services) {
        let services = counted(in_force.services.len() as u64, "service");
        console.say(&format!("not in force on this host: its cluster has {services} instead of these"))?;
    }
    for warning in &checked.warnings {
        console.say(&format!("warning: {warning}"))?;
    }
    Ok(Exit::Done.code())
}

/// The JSON output. Its shape does not change.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    valid: bool,
    mistakes: &'a [Mistake],
    /// Number of mistakes that are not listed.
    more_mistakes: usize,
    warnings: Vec<&'a str>,
    memory: Option<MemoryReport>,
    source_ports: Option<PortsReport<'a>>,
}

#[derive(Serialize)]
struct MemoryReport {
    total_bytes: u64,
    flows_bytes: u64,
    flows_ipv6_bytes: u64,
    services_bytes: u64,
    counters_bytes: u64,
}

#[derive(Serialize)]
struct PortsReport<'a> {
    ports_per_source_and_backend: u32,
    services: Vec<ServicePortsReport<'a>>,
}

#[derive(Serialize)]
struct ServicePortsReport<'a> {
    service: &'a str,
    family: String,
    sources: u32,
    backends: u32,
    flows_max: u64,
}

impl<'a> Report<'a> {
    /// The output for a valid file.
    fn of(file: &Path, outcome: &'a Result<Checked, Failure>) -> Option<Self> {
        let file = file.display().to_string();
        let report = match outcome {
            Ok(checked) => Self {
                file,
                valid: true,
                mistakes: &[],
                more_mistakes: 0,
                warnings: checked.warnings.iter().map(String::as_str).collect(),
                memory: Some(MemoryReport::of(&checked.memory)),
                source_ports: Some(PortsReport::of(&checked.ports)),
            },
            Err(failure) => {
                let mistakes = failure.mistakes()?;
                Self {
                    file,
                    valid: false,
                    mistakes: mistakes.list(),
                    more_mistakes: mistakes.more(),
                    warnings: Vec::new(),
                    memory: None,
                    source_ports: None,
                }
            }
        };
        Some(report)
    }
}

impl MemoryReport {
    const fn of(memory: &Memory) -> Self {
        Self {
            total_bytes: memory.total(),
            flows_bytes: memory.flows,
            flows_ipv6_bytes: memory.flows_ipv6,
            services_bytes: memory.services,
            counters_bytes: memory.counters,
        }
    }
}

impl<'a> PortsReport<'a> {
    fn of(ports: &'a SourcePorts) -> Self {
        let services = ports.services.iter().map(|it| ServicePortsReport {
            service: &it.service,
            family: it.family.to_string().to_lowercase(),
            sources: it.sources,
            backends: it.backends,
            flows_max: it.flows(ports.ports),
        });
        Self { ports_per_source_and_backend: ports.ports, services: services.collect() }
    }
}

fn summary(spec: &Spec) -> String {
    let backends = spec.services.iter().map(|service| service.backends.len() as u64).sum();
    let interfaces: BTreeSet<&str> =
        spec.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    format!(
        "{}, {} on {}",
        counted(spec.services.len() as u64, "service"),
        counted(backends, "backend"),
        interfaces.into_iter().collect::<Vec<_>>().join(", ")
    )
}
