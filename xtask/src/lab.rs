//! `demo`, `bench` and `lab`: programs of the `tests` package, built as the user and run as root.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::{
    build, cargo, command, root,
    setup::{self, Part},
};

/// Real requests through XDP: a lab of namespaces, three web servers, one of them killed and brought back
#[derive(Args)]
pub struct Demo {
    /// Such as --keep (leave the lab up) and --json (print the figures)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Nanoseconds per packet beside the floor, and end to end beside nftables and HAProxy
#[derive(Args)]
pub struct Bench {
    /// Such as --json FILE
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// The demo's network, to stay
#[derive(Subcommand)]
pub enum Lab {
    /// Make it and start everything in it
    Up,
    /// A shell inside it
    Shell,
    /// Take it down
    Down,
}

impl Demo {
    pub fn run(self) -> Result<()> {
        prepare()?;
        become_root(
            "lab",
            ["demo".into()].into_iter().chain(self.arguments),
            "the demo, which makes network namespaces",
        )
    }
}

impl Bench {
    pub fn run(self) -> Result<()> {
        prepare()?;
        become_root(
            "bench",
            self.arguments,
            "the bench, which loads XDP programs and makes network namespaces",
        )
    }
}

impl Lab {
    pub fn run(self) -> Result<()> {
        let verb = match self {
            Self::Up => {
                prepare()?;
                "up"
            }
            Self::Shell => "shell",
            Self::Down => "down",
        };
        become_root("lab", [verb.into()], "the lab of network namespaces")
    }
}

/// Makes whatever the lab runs.
fn prepare() -> Result<()> {
    setup::ensure(&[Part::Toolchain, Part::Network, Part::Lab])?;
    build::release()
}

/// Builds a program of the tests package and turns into it: signals and the exit code are then its own affair.
fn become_root(program: &str, arguments: impl IntoIterator<Item = OsString>, reason: &str) -> Result<()> {
    let mut cargo = cargo::cargo();
    cargo.args(["build", "--locked", "--release", "--package", "tests", "--bin", program]);
    let executables = cargo::executables(&mut cargo)?;
    let executable = executables.first().with_context(|| format!("cargo built no `{program}`"))?;

    let mut command = root::built(&executable.path, reason)?;
    command.args(arguments);
    let error = command.exec();
    Err(error).with_context(|| format!("run `{}`", command::shown(&command)))
}
