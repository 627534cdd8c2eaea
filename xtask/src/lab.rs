//! `demo` and `lab`: programs of the `tests` package, built as the user and run as root.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::{
    build, cargo, command, root,
    setup::{self, Part},
};

/// Send real requests through XDP to three web servers in network namespaces, and kill and restart one of them
#[derive(Args)]
pub struct Demo {
    /// Options of the demo: --keep (leave the lab running), --json (print the figures)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Run a scenario, or create, enter or remove the demo's network
#[derive(Subcommand)]
pub enum Lab {
    /// A database cluster behind xlb: promotions, dead and cut primaries, and a fence, with figures
    Database {
        /// Options: --keep (leave the last cluster up), --json (print the figures)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Two nodes under load: what clients notice when one of them fails or returns, with figures
    Failover {
        /// Options: --keep (leave the last pair up), --json (print the figures)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Create the network and start everything in it
    Up,
    /// Open a shell inside it
    Shell,
    /// Remove it
    Down,
}

impl Demo {
    pub fn run(self) -> Result<()> {
        prepare()?;
        become_root(
            "lab",
            ["demo".into()].into_iter().chain(self.arguments),
            "the demo, which creates network namespaces,",
        )
    }
}

impl Lab {
    pub fn run(self) -> Result<()> {
        let verb = match self {
            Self::Database { arguments } => return scenario("database", arguments),
            Self::Failover { arguments } => return scenario("failover", arguments),
            Self::Up => {
                prepare()?;
                "up"
            }
            Self::Shell => "shell",
            Self::Down => "down",
        };
        become_root("lab", [verb.into()], "the lab, which creates network namespaces,")
    }
}

fn scenario(name: &str, arguments: Vec<OsString>) -> Result<()> {
    prepare()?;
    let words = [name.into()].into_iter().chain(arguments);
    become_root("lab", words, "the lab, which creates network namespaces,")
}

/// Installs and builds what the lab runs.
pub fn prepare() -> Result<()> {
    setup::ensure(&[Part::Toolchain, Part::Network, Part::Lab])?;
    build::release()
}

/// Builds a program of the tests package and replaces this process with it as root, so that signals and the exit code
/// are the program's own.
pub fn become_root(program: &str, arguments: impl IntoIterator<Item = OsString>, reason: &str) -> Result<()> {
    let mut command = root::built(&built(program)?, reason)?;
    command.args(arguments);
    let error = command.exec();
    Err(error).with_context(|| format!("run `{}`", command::shown(&command)))
}

/// Builds a program of the tests package; its path.
pub fn built(program: &str) -> Result<PathBuf> {
    let mut cargo = cargo::cargo();
    cargo.args(["build", "--locked", "--release", "--package", "tests", "--bin", program]);
    let executables = cargo::executables(&mut cargo)?;
    let executable = executables.into_iter().next();
    Ok(executable.with_context(|| format!("cargo did not build `{program}`"))?.path)
}
