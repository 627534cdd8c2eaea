//! `setup`: makes a machine ready, and does nothing where it is.
//!
//! A command names the parts it needs, a part is a list of needs, and each need knows whether it is met, why it is
//! there and what cures its lack:
//!
//! ```text
//!   Part ─▶ needs ─▶ those not met ─▶ packages: one apt-get for all (root, asked for once)
//!                                      └▶ unpacked, if a test's program would cost the host a package
//!                                   ─▶ crates: cargo install below target/tools
//!                                   ─▶ Linux 6.1: unpacked below target/tools
//!                                   ─▶ else one error that says what to install by hand
//! ```
//!
//! Nothing goes into the user's home, no package of the host is removed or downgraded, and services of installed
//! packages are not started: the lab runs its own.

mod apt;
mod lab;
mod lint;
mod toolchain;
mod vm;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::tools::Tool;

/// Install what a developer's commands need and this machine lacks
#[derive(Args)]
pub struct Setup {
    /// Only these parts (default: all)
    parts: Vec<Part>,
}

/// What a command can need of the machine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// A Rust compiler and a linker for BPF
    Toolchain,
    /// Formatter, clippy and cargo-deny
    Lint,
    /// What makes network namespaces
    Network,
    /// A machine with the oldest kernel
    Vm,
    /// What the lab of namespaces runs: web servers, clients, other load balancers to compare with
    Lab,
}

/// Something that a part needs.
struct Need {
    what: &'static str,
    reason: &'static str,
    is_met: bool,
    cure: Cure,
}

/// What to do when a need is not met.
enum Cure {
    /// A Debian package, where there is apt-get.
    Package(&'static str),
    /// A Debian package that only tests need, with a program that bears the need's name and runs from anywhere: it is
    /// unpacked below target where installing it would do harm.
    PortablePackage(&'static str),
    /// A program from crates.io.
    Crate(&'static Tool),
    /// A Debian package that is never installed, and what fetches and unpacks it for the need's reason.
    Unpacked(&'static str, fn(&str) -> Result<()>),
    /// Nothing that we may do: the words say what the user can.
    ByHand(&'static str),
}

impl Setup {
    pub fn run(&self) -> Result<()> {
        if self.parts.is_empty() { ensure(Part::value_variants()) } else { ensure(&self.parts) }
    }
}

/// Makes sure that all needs of these parts are met.
pub fn ensure(parts: &[Part]) -> Result<()> {
    let start = Instant::now();
    let mut missing: Vec<Need> = parts.iter().flat_map(|part| part.needs()).collect();
    missing.retain(|need| !need.is_met);
    if missing.is_empty() {
        eprintln!("setup: nothing is missing ({:.1?})", start.elapsed());
        return Ok(());
    }

    refuse_what_only_the_user_can_do(&missing)?;
    apt::provide(&missing)?;
    for need in &missing {
        match need.cure {
            Cure::Crate(tool) => tool.install(need.reason)?,
            Cure::Unpacked(_, unpack) => unpack(need.reason)?,
            Cure::Package(_) | Cure::PortablePackage(_) | Cure::ByHand(_) => {}
        }
    }
    eprintln!("setup: ready after {:.1?}", start.elapsed());
    Ok(())
}

impl Part {
    fn needs(self) -> Vec<Need> {
        match self {
            Self::Toolchain => toolchain::needs(),
            Self::Lint => lint::needs(),
            Self::Vm => vm::needs(),
            Self::Network => lab::network(),
            Self::Lab => lab::programs(),
        }
    }
}

impl Need {
    /// The Debian package that cures it.
    fn package(&self) -> Option<&'static str> {
        match self.cure {
            Cure::Package(package) | Cure::PortablePackage(package) | Cure::Unpacked(package, _) => {
                Some(package)
            }
            Cure::Crate(_) | Cure::ByHand(_) => None,
        }
    }
}

/// All at once and before anything is installed, in one line.
fn refuse_what_only_the_user_can_do(missing: &[Need]) -> Result<()> {
    let has_apt = apt::is_here();
    let lack = |need: &Need| {
        if let Cure::ByHand(words) = need.cure {
            return Some(format!("{} ({}): {words}", need.what, need.reason));
        }
        let lacks_apt = !has_apt && need.package().is_some();
        lacks_apt.then(|| format!("{} ({})", need.what, need.reason))
    };
    let by_hand: Vec<String> = missing.iter().filter_map(lack).collect();
    if !by_hand.is_empty() {
        bail!("this machine lacks what setup cannot install: {}", by_hand.join("; "));
    }
    Ok(())
}
