//! `cargo xtask bench`: the figures of docs/performance.md.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde_json::json;
use tests::bench::{
    checks, cpus, end_to_end, frames, group, new_flows,
    packets::{self, Effort},
    report::Table,
    scale, sharing, sweeps,
};

/// Measures packets, two CPUs, new flows of each scheduler and in a group, a group under load, live frames, end-to-end throughput (also of nftables and
/// HAProxy), thousands of services, https checks, and removals of backends with millions of flows
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Only these sections (default: all)
    sections: Vec<Section>,
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer and shorter rounds
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Packets,
    Cpus,
    NewFlows,
    Sharing,
    Group,
    Frames,
    EndToEnd,
    Scale,
    Checks,
    Sweeps,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut figures = serde_json::Map::new();
    let mut missed = Vec::new();
    for &section in Section::value_variants() {
        if !arguments.sections.is_empty() && !arguments.sections.contains(&section) {
            continue;
        }
        let quick = arguments.quick;
        let (name, tables) = match section {
            Section::Packets => {
                ("packets", packets::measure(if quick { Effort::QUICK } else { Effort::FULL })?)
            }
            Section::Cpus => ("cpus", cpus::measure(if quick { 5 } else { 15 })?),
            Section::NewFlows => ("new_flows", new_flows::measure(if quick { 3 } else { 9 })?),
            Section::Sharing => ("sharing", sharing::measure(if quick { 5 } else { 25 })?),
            Section::Group => ("group", group::measure(Duration::from_secs(if quick { 10 } else { 60 }))?),
            Section::Frames => ("frames", frames::measure(if quick { 3 } else { 5 })?),
            Section::EndToEnd => ("end_to_end", end_to_end::measure(if quick { 1 } else { 5 })?),
            Section::Scale => ("scale", scale::measure(if quick { 5 } else { 20 })?),
            Section::Checks => ("checks", checks::measure(Duration::from_secs(if quick { 10 } else { 60 }))?),
            Section::Sweeps => ("sweeps", sweeps::measure(if quick { 5 } else { 20 })?),
        };
        tables.iter().for_each(|table| table.print());
        missed.extend(tables.iter().flat_map(Table::missed));
        figures.insert(name.to_owned(), tables.iter().map(|table| table.json()).collect());
    }
    if let Some(path) = arguments.json {
        fs::write(&path, format!("{:#}\n", json!(figures)))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if missed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    missed.iter().for_each(|line| println!("missed: {line}"));
    Ok(ExitCode::FAILURE)
}
