//! `build`: the XDP program, and the `xlb` binary that embeds it.

pub mod variants;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    cargo::{self, Executable},
    command,
    setup::{self, Part},
    toolchain::Toolchain,
    tree,
};

/// Build the XDP program and target/release/xlb, which embeds it
#[derive(Args)]
pub struct Build {
    /// Build an unoptimised target/debug/xlb instead (the XDP program is always optimised)
    #[arg(long)]
    debug: bool,
}

impl Build {
    pub fn run(&self) -> Result<()> {
        setup::ensure(&[Part::Toolchain])?;
        xlb(if self.debug { "dev" } else { "release" })
    }
}

/// Builds the product as it is shipped, for lab, demo and bench.
pub fn release() -> Result<()> {
    xlb("release")
}

/// `lb-userspace/build.rs` embeds the object that the variable names.
fn xlb(profile: &str) -> Result<()> {
    objects(&[])?;
    let mut cargo = cargo::cargo();
    cargo.args(["build", "--locked", "--package", "lb-userspace", "--profile", profile]);
    command::run(cargo.env("XLB_BPF_OBJECT", tree::bpf_objects().join("lb")))
}

/// Compiles the BPF programs of the product and the tests, with these features of `lb-ebpf`.
pub fn objects(features: &[String]) -> Result<Vec<Executable>> {
    let toolchain = Toolchain::find().context("found no compiler for BPF: run `cargo xtask setup`")?;
    eprintln!("build: compiling BPF programs with {}", toolchain.name());
    let mut cargo = toolchain.cargo("build");
    let features: Vec<String> = features.iter().map(|feature| format!("lb-ebpf/{feature}")).collect();
    cargo.args(["--bins", "--features", &features.join(",")]);
    cargo::executables(&mut cargo)
}
