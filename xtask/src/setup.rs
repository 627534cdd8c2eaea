//! `setup`: installs what is missing on this machine, and nothing else.
//!
//! A command lists the parts that it requires. A part is a list of needs. For each need there is a check, a purpose and
//! a way to install it:
//!
//! ```text
//!   Part ─▶ needs ─▶ those not met ─▶ packages: one apt-get for all (root, asked for once)
//!                                      └▶ unpacked, if installing a test program would remove a package of the host
//!                                   ─▶ crates: cargo install under target/tools
//!                                   ─▶ Linux 6.1: unpacked under target/tools
//!                                   ─▶ otherwise one error that says what to install by hand
//! ```
//!
//! Nothing goes into the user's home directory, no package of the host is removed or downgraded, and services of
//! installed packages are not started: the lab runs its own.

mod apt;
mod fuzz;
mod lab;
mod lint;
mod toolchain;
mod vm;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::tools::Tool;

/// Install what the developer commands need and this machine does not have
#[derive(Args)]
pub struct Setup {
    /// Only these parts (default: all)
    parts: Vec<Part>,
}

/// What a command can require of the machine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// A Rust compiler and a linker for BPF
    Toolchain,
    /// Formatter, clippy and cargo-deny
    Lint,
    /// A C++ compiler, for libFuzzer
    Fuzz,
    /// Tools for network namespaces
    Network,
    /// An emulated machine with the oldest supported kernel
    Vm,
    /// Programs that the lab runs: web servers, clients, and other load balancers for comparison
    Lab,
}

/// One requirement of a part.
struct Need {
    what: &'static str,
    reason: &'static str,
    is_met: bool,
    remedy: Remedy,
}

/// How to provide a need.
enum Remedy {
    /// A Debian package, if there is apt-get.
    Package(&'static str),
    /// A Debian package that only tests need, with a relocatable program of the need's name. It is unpacked under target
    /// if installing it would remove or downgrade a package of the host.
    PortablePackage(&'static str),
    /// A program from crates.io.
    Crate(&'static Tool),
    /// A Debian package that is never installed, and the function that fetches and unpacks it.
    Unpacked(&'static str, fn(&str) -> Result<()>),
    /// Something that only the user can do, as described.
    ByHand(&'static str),
}

impl Setup {
    pub fn run(&self) -> Result<()> {
        if self.parts.is_empty() { ensure(Part::value_variants()) } else { ensure(&self.parts) }
    }
}

/// Provides all unmet needs of these parts.
pub fn ensure(parts: &[Part]) -> Result<()> {
    let start = Instant::now();
    let mut missing: Vec<Need> = parts.iter().flat_map(|part| part.needs()).collect();
    missing.retain(|need| !need.is_met);
    if missing.is_empty() {
        eprintln!("setup: nothing to install ({:.1?})", start.elapsed());
        return Ok(());
    }

    refuse_what_only_the_user_can_do(&missing)?;
    apt::provide(&missing)?;
    for need in &missing {
        match need.remedy {
            Remedy::Crate(tool) => tool.install(need.reason)?,
            Remedy::Unpacked(_, unpack) => unpack(need.reason)?,
            Remedy::Package(_) | Remedy::PortablePackage(_) | Remedy::ByHand(_) => {}
        }
    }
    eprintln!("setup: done in {:.1?}", start.elapsed());
    Ok(())
}

impl Part {
    fn needs(self) -> Vec<Need> {
        match self {
            Self::Toolchain => toolchain::needs(),
            Self::Lint => lint::needs(),
            Self::Fuzz => fuzz::needs(),
            Self::Vm => vm::needs(),
            Self::Network => lab::network(),
            Self::Lab => lab::programs(),
        }
    }
}

impl Need {
    /// The Debian package that provides it.
    fn package(&self) -> Option<&'static str> {
        match self.remedy {
            Remedy::Package(package) | Remedy::PortablePackage(package) | Remedy::Unpacked(package, _) => {
                Some(package)
            }
            Remedy::Crate(_) | Remedy::ByHand(_) => None,
        }
    }
}

/// Reports them all in one error, before anything is installed.
fn refuse_what_only_the_user_can_do(missing: &[Need]) -> Result<()> {
    let has_apt = apt::is_available();
    let lack = |need: &Need| {
        if let Remedy::ByHand(words) = need.remedy {
            return Some(format!("{} ({}): {words}", need.what, need.reason));
        }
        let lacks_apt = !has_apt && need.package().is_some();
        lacks_apt.then(|| format!("{} ({})", need.what, need.reason))
    };
    let by_hand: Vec<String> = missing.iter().filter_map(lack).collect();
    if !by_hand.is_empty() {
        bail!("setup cannot install: {}", by_hand.join("; "));
    }
    Ok(())
}
