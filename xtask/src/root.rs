//! Running as root what needs it: never cargo, whose files would then belong to root.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Result, ensure};
use nix::unistd::geteuid;

use crate::{command, tree};

/// Whether we are root already.
pub fn is_us() -> bool {
    geteuid().is_root()
}

/// A command that runs `program` as root: directly, or through sudo, which asks once the user has read why.
pub fn command(program: impl AsRef<OsStr>, environment: &[(&str, String)], reason: &str) -> Result<Command> {
    let mut command = if is_us() { Command::new("env") } else { sudo(reason)? };
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
    Ok(command)
}

/// A command that runs one of our own binaries as root, told where the rest of the build is and where programs are.
pub fn built(binary: &Path, reason: &str) -> Result<Command> {
    let environment = [
        ("XLB_BIN", tree::xlb().display().to_string()),
        ("XLB_BPF_DIR", tree::bpf_objects().display().to_string()),
        ("PATH", command::search_path()),
    ];
    command(binary, &environment, reason)
}

/// sudo drops the environment: `env` stands between, for root as well, so that both run the same.
fn sudo(reason: &str) -> Result<Command> {
    ensure!(command::find("sudo").is_some(), "{reason} needs root, and there is no sudo: become root first");
    eprintln!("sudo: {reason} needs root");
    let mut sudo = Command::new("sudo");
    sudo.arg("env");
    Ok(sudo)
}
