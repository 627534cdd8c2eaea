//! Programs from crates.io, in fixed versions, installed under target/tools.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};

use crate::{cargo, command, tree};

/// Turns LLVM bitcode into a BPF object. This version supports LLVM 22, which Debian's rustc-web uses.
pub const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
    flags: &["--no-default-features", "--features", "llvm-22"],
    environment: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
};

/// Checks licences, sources and advisories of all dependencies. Built without optimisation: it runs for a second, but an
/// optimised build takes minutes.
pub const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", flags: &["--debug"], environment: &[] };

/// One program.
pub struct Tool {
    name: &'static str,
    version: &'static str,
    flags: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

impl Tool {
    /// Its path, if exactly this version is installed.
    pub fn installed(&self) -> Option<PathBuf> {
        let record = fs::read_to_string(tree::tools().join(".crates.toml")).ok()?;
        let path = tree::tools().join("bin").join(self.name);
        (record.contains(&format!("\"{} {} ", self.name, self.version)) && path.is_file()).then_some(path)
    }

    /// Compiles and installs it.
    pub fn install(&self, reason: &str) -> Result<()> {
        let start = Instant::now();
        eprintln!("setup: {} {}: {reason}", self.name, self.version);
        let mut cargo = cargo::cargo();
        cargo.args(["install", self.name, "--quiet", "--locked", "--version", self.version, "--root"]);
        cargo.arg(tree::tools()).args(self.flags).envs(self.environment.iter().copied());
        // Below the tree as well, because /tmp may be small. The next tool cannot reuse the build directory.
        let build = tree::tools().join("build");
        command::run(cargo.env("CARGO_TARGET_DIR", &build))
            .with_context(|| format!("install {} {}", self.name, self.version))?;
        fs::remove_dir_all(&build).with_context(|| format!("remove {}", build.display()))?;
        eprintln!("setup: {} installed in {:.1?}", self.name, start.elapsed());
        Ok(())
    }
}
