//! `test`: four test suites, from the cheapest to the most realistic.
//!
//! - **host**: `cargo test --workspace`: both cores and everything else that needs no root and no BPF.
//! - **kernel**: the compiled program in the kernel, by `BPF_PROG_TEST_RUN`: `tests/tests/kernel_*.rs`.
//! - **oldest**: the same, and `verify`, in an emulated machine with the oldest supported kernel.
//! - **lab**: the shipped `xlb` between network namespaces: `tests/tests/lab/`.
//!
//! Kernel and lab need root. Cargo does not run as root: it builds their runners (feature `root` of the tests package),
//! and those run one after the other. A suite in which no test passed has failed.

mod oldest;
mod runner;

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    build,
    cargo::{self, Executable},
    command, root,
    setup::{self, Part},
    tree, verify,
};
use runner::Count;

/// Run all test suites, or one: host, kernel, oldest, lab
#[derive(Args)]
pub struct Test {
    /// Suite to run (default: all)
    suite: Option<Suite>,
    /// Features of lb-ebpf for the kernel suite, such as `without_rescan`, which removes a guard, so that the race test
    /// must fail
    #[arg(long, value_name = "FEATURE")]
    bpf_features: Vec<String>,
    /// Arguments for the test runners, such as part of a test's name
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Suite {
    Host,
    Kernel,
    Oldest,
    Lab,
}

impl Test {
    pub fn run(&self) -> Result<()> {
        self.prepare()?;

        let mut report = Vec::new();
        let mut is_good = true;
        for &suite in Suite::value_variants() {
            if !self.selects(suite) {
                report.push(format!("{suite:?}: NOT RUN: not selected"));
                continue;
            }
            let start = Instant::now();
            let outcome = suite.run(&self.arguments);
            is_good &= outcome.as_ref().is_ok_and(Count::is_good);
            let words = outcome.map_or_else(|error| format!("FAILED: {error:#}"), |count| count.to_string());
            report.push(format!("{suite:?}: {words} ({:.1?})", start.elapsed()));
        }

        for line in report {
            eprintln!("test: {line}");
        }
        ensure!(is_good, "tests failed");
        Ok(())
    }

    fn selects(&self, suite: Suite) -> bool {
        self.suite.is_none_or(|only| only == suite)
    }

    /// The host suite needs only cargo; the kernel suite also needs the BPF programs.
    fn prepare(&self) -> Result<()> {
        let fits = self.bpf_features.is_empty() || self.suite == Some(Suite::Kernel);
        ensure!(
            fits,
            "--bpf-features applies to the kernel suite only: `cargo xtask test kernel --bpf-features ...`"
        );
        match self.suite {
            Some(Suite::Host) => Ok(()),
            Some(Suite::Kernel | Suite::Oldest) => {
                setup::ensure(&[Part::Toolchain, Part::Network])?;
                build::objects(&self.bpf_features).map(drop)
            }
            Some(Suite::Lab) | None => {
                setup::ensure(&[Part::Toolchain, Part::Network, Part::Lab])?;
                build::release()
            }
        }
    }
}

impl Suite {
    fn run(self, arguments: &[String]) -> Result<Count> {
        match self {
            Self::Host => host(arguments),
            Self::Kernel => {
                verify::as_built()?;
                as_root(KERNEL, "the kernel suite, which loads XDP programs,", arguments)
            }
            Self::Oldest => oldest::run(&runners(KERNEL)?, arguments),
            Self::Lab => {
                if selects(LAB, &UPGRADES, arguments)? {
                    build::variants::build()?;
                }
                as_root(LAB, "the lab suite, which creates network namespaces,", arguments)
            }
        }
    }
}

fn host(arguments: &[String]) -> Result<Count> {
    let mut cargo = cargo::cargo();
    cargo.args(["test", "--locked", "--workspace", "--no-fail-fast", "--"]).args(arguments);
    runner::watch(cargo.env("PATH", command::search_path()))
}

const KERNEL: &str = "kernel_*";
const LAB: &str = "lab";
/// The lab's tests that need builds with other layouts of the maps.
const UPGRADES: [&str; 2] = ["upgrade::", "killed_starts::"];

/// Do these arguments select a test of these modules?
fn selects(pattern: &str, modules: &[&str], arguments: &[String]) -> Result<bool> {
    for runner in runners(pattern)? {
        let list = command::query(Command::new(&runner.path).arg("--list").args(arguments));
        let list = list.with_context(|| format!("list the tests of {}", runner.name))?;
        if list.lines().any(|test| modules.iter().any(|module| test.starts_with(module))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Builds the test runners whose names match the pattern, and runs each.
fn as_root(pattern: &str, reason: &str, arguments: &[String]) -> Result<Count> {
    let mut total = Count::default();
    for runner in runners(pattern)? {
        eprintln!("     Running {}", runner.name);
        let mut command = root::built(&runner.path, reason)?;
        // Cargo would run it there.
        command.current_dir(tree::top().join("tests")).args(arguments);
        total = total + runner::watch(&mut command)?;
    }
    Ok(total)
}

fn runners(pattern: &str) -> Result<Vec<Executable>> {
    let mut cargo = cargo::cargo();
    // The whole workspace, not only the package: then all dependencies have the same features as in the host suite, and
    // its builds are reused.
    cargo.args(["test", "--locked", "--no-run", "--workspace", "--features", "tests/root"]);
    cargo.args(["--test", pattern]);
    let mut executables = cargo::executables(&mut cargo)?;
    executables.retain(|executable| executable.is_test);
    Ok(executables)
}
