//! Debian's package of Linux 6.1, unpacked below target/tools: not installed, this host boots what it always did.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{command, tree};

/// The package that depends on the newest kernel for virtual machines.
pub const PACKAGE: &str = "linux-image-cloud-amd64";
/// The oldest version that xlb promises to run on. It is Debian 12's.
const OLDEST: &str = "6.1.";

/// What the tests' networks are made of, each after what it needs.
const MODULES: &[&str] = &["net/llc/llc.ko", "net/802/stp.ko", "net/bridge/bridge.ko", "drivers/net/veth.ko"];

/// A kernel and modules of it, to be inserted in this order.
pub struct Linux {
    pub kernel: PathBuf,
    pub modules: Vec<PathBuf>,
}

impl Linux {
    /// The one that was unpacked, if it is whole.
    pub fn find() -> Option<Self> {
        let modules = fs::read_dir(directory().join("lib/modules")).ok()?;
        let version = modules
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|version| version.starts_with(OLDEST))?;
        let kernel = directory().join(format!("boot/vmlinuz-{version}"));
        let modules = directory().join(format!("lib/modules/{version}/kernel"));
        let modules: Vec<_> = MODULES.iter().map(|module| modules.join(module)).collect();
        let is_whole = kernel.is_file() && modules.iter().all(|module| module.is_file());
        is_whole.then_some(Self { kernel, modules })
    }

    /// Downloads and unpacks it.
    pub fn unpack(reason: &str) -> Result<()> {
        let start = Instant::now();
        let package = newest()?;
        eprintln!("setup: package {package}, unpacked below target: {reason}");
        let directory = directory();
        // What an earlier setup left half done.
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let mut download = Command::new("apt-get");
        // As root, apt would download as a user of its own, who may not write here.
        download.args(["--option", "APT::Sandbox::User=root"]);
        command::run(download.args(["download", "--quiet=2", &package]).current_dir(&directory))?;
        let archive = archive(&directory)?;
        command::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&directory))?;
        fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
        eprintln!("setup: {package} unpacked in {:.1?}", start.elapsed());
        Ok(())
    }
}

fn directory() -> PathBuf {
    tree::tools().join("linux")
}

/// The newest kernel of this distribution.
fn newest() -> Result<String> {
    let mut ask = Command::new("apt-cache");
    let told = command::ask(ask.args(["depends", "--important", PACKAGE])).unwrap_or_default();
    let package = told.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("apt knows no package {PACKAGE}: try `apt-get update`"))?;
    ensure!(
        package.starts_with(&format!("linux-image-{OLDEST}")),
        "this distribution's kernel is {package}, and Linux {OLDEST}x is wanted, which Debian 12 has"
    );
    Ok(package.to_owned())
}

fn archive(directory: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    files.find(is_archive).context("apt-get downloaded nothing")
}
