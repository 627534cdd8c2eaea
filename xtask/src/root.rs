//! Runs programs as root. Cargo never runs as root, because its files would then belong to root.

use std::{env, ffi::OsStr, path::Path, process::Command};

use anyhow::{Result, ensure};
use nix::unistd::geteuid;

use crate::{command, tree};

/// Variables that make tests longer.
const LENGTHS: &[&str] = &["XLB_KILLS", "XLB_FLAP_SECONDS", "XLB_RACE_RUNS"];

/// Is this process root?
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// A command that runs `program` as root: directly, or through sudo after printing the reason.
pub fn command(program: impl AsRef<OsStr>, environment: &[(&str, String)], reason: &str) -> Result<Command> {
    let mut command = if is_root() { Command::new("env") } else { sudo(reason)? };
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
    Ok(command)
}

/// A command that runs one of our own binaries as root, with the locations of the build and of programs in the environment.
pub fn built(binary: &Path, reason: &str) -> Result<Command> {
    let mut environment = vec![
        ("XLB_BIN", tree::xlb().display().to_string()),
        ("XLB_BPF_DIR", tree::bpf_objects().display().to_string()),
        ("PATH", command::search_path()),
    ];
    environment.extend(LENGTHS.iter().filter_map(|name| Some((*name, env::var(name).ok()?))));
    command(binary, &environment, reason)
}

/// sudo drops the environment, so `env` sets it; also when already root, so that both cases are the same.
fn sudo(reason: &str) -> Result<Command> {
    ensure!(command::find("sudo").is_some(), "{reason} needs root, and sudo was not found: run this as root");
    eprintln!("sudo: {reason} needs root");
    let mut sudo = Command::new("sudo");
    sudo.arg("env");
    Ok(sudo)
}
