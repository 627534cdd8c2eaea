//! `lint`: what a reviewer should not have to say.
//!
//! fmt, clippy for the host and for BPF and rustdoc with warnings denied, links of the documents, and cargo-deny. All of
//! them run, even after a failure.
//! Advisories come from a database on the network: where it cannot be had, that check is left out and said to be.

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

/// Check format, clippy (host and BPF), rustdoc, links of documents and dependencies
#[derive(Args)]
pub struct Lint {}

type Check = fn() -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("format", format),
    ("clippy for the host", clippy),
    ("clippy for BPF", clippy_for_bpf),
    ("rustdoc", rustdoc),
    ("links of documents", documents::check),
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
        ensure!(failed.is_empty(), "lint found something in: {}", failed.join(", "));
        eprintln!("lint: ok");
        Ok(())
    }
}

fn format() -> Result<()> {
    command::run(cargo::cargo().args(["fmt", "--all", "--check"]))
}

/// All features, because the tests that need root are behind one.
fn clippy() -> Result<()> {
    let scope = ["clippy", "--locked", "--workspace", "--all-targets", "--all-features"];
    command::run(cargo::cargo().args(scope).args(["--", "-D", "warnings"]))
}

fn clippy_for_bpf() -> Result<()> {
    let toolchain = Toolchain::find().context("there is no compiler for BPF: run `cargo xtask setup`")?;
    command::run(toolchain.cargo("clippy").args(["--lib", "--bins", "--", "-D", "warnings"]))
}

/// These pages are for developers of xlb, so private items are on them, and public ones may link there.
fn rustdoc() -> Result<()> {
    let scope = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--all-features"];
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    command::run(cargo::cargo().args(scope).env("RUSTDOCFLAGS", flags))
}

fn dependencies() -> Result<()> {
    command::run(deny()?.args(["check", "licenses", "bans", "sources"]))
}

fn advisories() -> Result<()> {
    if command::run(deny()?.args(["fetch", "db"])).is_err() {
        eprintln!("lint: NOT CHECKED: advisories on dependencies, because their database cannot be fetched");
        return Ok(());
    }
    command::run(deny()?.args(["check", "--disable-fetch", "advisories"]))
}

/// cargo-deny calls cargo, and must find the one that runs us.
fn deny() -> Result<Command> {
    let program = CARGO_DENY.installed().context("there is no cargo-deny: run `cargo xtask setup`")?;
    let mut deny = Command::new(program);
    deny.current_dir(tree::top()).args(["--locked", "--log-level", "error"]);
    Ok(deny)
}
