//! The memory of the maps: what `xlb check` computes, what the daemon reports, and what the kernel accounts for.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use lb_common::service::Mode;
use nix::unistd::Pid;
use serde_json::Value;
use tests::lab::{Config, daemon::binary};

use crate::stage::one_backend;

/// The kernel's structures differ in size between versions. The daemon also has small maps that the table of maps leaves out:
/// one of the program's constants, and those with one value per CPU.
const TOLERANCE_PERCENT: u64 = 2;

#[test]
fn check_and_status_report_the_memory_that_the_kernel_accounts_for() -> Result<()> {
    let lab = one_backend("memory")?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    let (binary, file) = (binary()?.display().to_string(), xlb.config_path().display().to_string());

    let checked: Value = serde_json::from_str(&lab.xlb.run(&[&binary, "check", &file, "-o", "json"])?)?;
    let status = xlb.json(&["status"])?;
    let accounted = accounted_bytes(xlb.pid()?)?;

    let computed = checked["memory"]["total_bytes"].as_u64().context("a check without memory")?;
    assert_eq!(status["map_memory_bytes"], computed);
    let allowed = computed * TOLERANCE_PERCENT / 100;
    assert!(
        accounted.abs_diff(computed) < allowed,
        "computed {computed} bytes, but the kernel accounts for {accounted}"
    );
    Ok(())
}

/// The bytes that the kernel accounts for all maps that a process has open.
fn accounted_bytes(process: Pid) -> Result<u64> {
    let mut maps = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        // It may have been closed since the directory was listed.
        let Ok(text) = fs::read_to_string(descriptor?.path()) else { continue };
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        if let (Some(id), Some(bytes)) = (value("map_id:"), value("memlock:")) {
            maps.insert(id.to_owned(), bytes.parse::<u64>()?);
        }
    }
    Ok(maps.into_values().sum())
}
