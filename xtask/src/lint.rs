//! `lint`: static checks.
//!
//! fmt, clippy for the host and for BPF and rustdoc with warnings denied, links in documents, and cargo-deny. All checks
//! run, even after a failure. Advisories come from a database on the network: if it cannot be fetched, that check is
//! skipped with a message.

mod documents;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    cargo, command,
    setup::{self, Part},
    toolchain::Toolchain,
    tools::CARGO_DENY,
    tree,
};

/// Check format, clippy (host and BPF), rustdoc, links in documents and dependencies
#[derive(Args)]
pub struct Lint {}

/// That of the product, and that of the fuzz targets.
const WORKSPACES: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];

type Check = fn() -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("format", format),
    ("clippy for the host", clippy),
    ("clippy for BPF", clippy_for_bpf),
    ("rustdoc", rustdoc),
    ("links in documents", documents::check),
    ("licences, bans and sources of dependencies", dependencies),
    ("advisories on dependencies", advisories),
];

impl Lint {
    pub fn run(&self) -> Result<()> {
        setup::ensure(&[Part::Toolchain, Part::Lint])?;

        let mut failed = Vec::new();
        for (name, check) in CHECKS {
            eprintln!("lint: {name}");
            if let Err(error) = check() {
                eprintln!("lint: {name}: {error:#}");
                failed.push(*name);
            }
        }
        ensure!(failed.is_empty(), "lint failed: {}", failed.join(", "));
        eprintln!("lint: ok");
        Ok(())
    }
}

fn format() -> Result<()> {
    WORKSPACES.iter().try_for_each(|manifest| {
        command::run(cargo::cargo().args(["fmt", "--manifest-path", manifest, "--all", "--check"]))
    })
}

/// Runs clippy with all features, because one of them enables the tests that need root. What the fuzz targets call needs a
/// configuration of its own.
fn clippy() -> Result<()> {
    let scope = ["clippy", "--locked", "--workspace", "--all-targets", "--all-features"];
    command::run(cargo::cargo().args(scope).args(["--", "-D", "warnings"]))?;
    let fuzzing = ["clippy", "--locked", "--package", "lb-userspace", "--lib"];
    command::run(cargo::cargo().args(fuzzing).args(["--", "--cfg", "fuzzing", "-D", "warnings"]))
}

fn clippy_for_bpf() -> Result<()> {
    let toolchain = Toolchain::find().context("found no compiler for BPF: run `cargo xtask setup`")?;
    command::run(toolchain.cargo("clippy").args(["--lib", "--bins", "--", "-D", "warnings"]))
}

/// The pages are for developers of xlb, so they include private items, and public items may link to them.
fn rustdoc() -> Result<()> {
    let scope = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--all-features"];
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    command::run(cargo::cargo().args(scope).env("RUSTDOCFLAGS", flags))
}

fn dependencies() -> Result<()> {
    WORKSPACES
        .iter()
        .try_for_each(|manifest| command::run(deny(manifest)?.args(["check", "licenses", "bans", "sources"])))
}

fn advisories() -> Result<()> {
    if command::run(deny(WORKSPACES[0])?.args(["fetch", "db"])).is_err() {
        eprintln!("lint: NOT CHECKED: advisories on dependencies: the advisory database cannot be fetched");
        return Ok(());
    }
    WORKSPACES.iter().try_for_each(|manifest| {
        command::run(deny(manifest)?.args(["check", "--disable-fetch", "advisories"]))
    })
}

/// cargo-deny for a workspace. It calls the cargo that runs xtask.
fn deny(manifest: &str) -> Result<Command> {
    let program = CARGO_DENY.installed().context("cargo-deny not found: run `cargo xtask setup`")?;
    let mut deny = Command::new(program);
    deny.current_dir(tree::top()).args(["--locked", "--log-level", "error", "--manifest-path", manifest]);
    Ok(deny)
}
