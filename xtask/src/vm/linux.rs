//! Debian's package of Linux 6.1, unpacked under target/tools, so the host's boot does not change.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{command, tree, unpacked};

/// The package that depends on the newest kernel for virtual machines.
pub const PACKAGE: &str = "linux-image-cloud-amd64";
/// The oldest supported version, which Debian 12 has.
const OLDEST: &str = "6.1.";

/// Its directory under target/tools/unpacked.
const NAME: &str = "linux";

/// Modules for the tests' networks, in order of their dependencies.
const MODULES: &[&str] = &["net/llc/llc.ko", "net/802/stp.ko", "net/bridge/bridge.ko", "drivers/net/veth.ko"];

/// A kernel and its modules, in the order in which they must be loaded.
pub struct Linux {
    pub kernel: PathBuf,
    pub modules: Vec<PathBuf>,
}

impl Linux {
    /// The unpacked kernel, if it is complete.
    pub fn find() -> Option<Self> {
        let modules = fs::read_dir(directory().join("lib/modules")).ok()?;
        let version = modules
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|version| version.starts_with(OLDEST))?;
        let kernel = directory().join(format!("boot/vmlinuz-{version}"));
        let modules = directory().join(format!("lib/modules/{version}/kernel"));
        let modules: Vec<_> = MODULES.iter().map(|module| modules.join(module)).collect();
        let is_complete = kernel.is_file() && modules.iter().all(|module| module.is_file());
        is_complete.then_some(Self { kernel, modules })
    }

    /// Downloads and unpacks it.
    pub fn unpack(reason: &str) -> Result<()> {
        let package = newest()?;
        eprintln!("setup: package {package}, unpacked under target: {reason}");
        unpacked::unpack(&tree::unpacked(), NAME, &[package]).map(drop)
    }
}

fn directory() -> PathBuf {
    tree::unpacked().join(NAME)
}

/// The newest kernel of this distribution.
fn newest() -> Result<String> {
    let mut apt_cache = Command::new("apt-cache");
    let output = command::query(apt_cache.args(["depends", "--important", PACKAGE])).unwrap_or_default();
    let package = output.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("apt has no package {PACKAGE}: run `apt-get update`"))?;
    ensure!(
        package.starts_with(&format!("linux-image-{OLDEST}")),
        "this distribution has {package}, but Linux {OLDEST}x is needed (Debian 12 has it)"
    );
    Ok(package.to_owned())
}
