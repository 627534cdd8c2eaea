//! `build`: the XDP program, and `xlb` with it inside.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    cargo::{self, Executable},
    command,
    setup::{self, Part},
    toolchain::Toolchain,
    tree,
};

/// Build the XDP program, and target/release/xlb with it inside
#[derive(Args)]
pub struct Build {
    /// Leave an unoptimised target/debug/xlb instead (the XDP program is always optimised)
    #[arg(long)]
    debug: bool,
}

impl Build {
    pub fn run(&self) -> Result<()> {
        setup::ensure(&[Part::Toolchain])?;
        xlb(if self.debug { "dev" } else { "release" })
    }
}

/// The product as it is shipped: what lab, demo and bench start with.
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

/// Compiles the BPF programs of product and tests, with features of `lb-ebpf`.
pub fn objects(features: &[String]) -> Result<Vec<Executable>> {
    let toolchain = Toolchain::find().context("there is no compiler for BPF: run `cargo xtask setup`")?;
    eprintln!("build: BPF programs, with {}", toolchain.name());
    let mut cargo = toolchain.cargo("build");
    let features: Vec<String> = features.iter().map(|feature| format!("lb-ebpf/{feature}")).collect();
    cargo.args(["--bins", "--features", &features.join(",")]);
    cargo::executables(&mut cargo)
}
