//! The compiler for the BPF target. Two variants are supported:
//!
//! - rustup's **nightly** with `rust-src`, and `bpf-linker` on PATH: aya's usual setup; `core` is built with the program.
//! - **Debian**'s `rustc-web`, whose `core` for BPF is precompiled (`libstd-rust-web-dev-bpf`), and a `bpf-linker` that
//!   `setup` builds with Debian's LLVM 22. It is a stable compiler, but aya's atomics need `asm_experimental_arch`:
//!   `RUSTC_BOOTSTRAP` enables that feature, only for the crates that use it.
//!
//! ```text
//!   lb-ebpf ──rustc (LLVM bitcode)──▶ bpf-linker (optimises, emits BTF) ──▶ target/bpf/bpfel-unknown-none/bpf/lb
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{cargo, command, tools, tree};

const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
/// The packages with BPF programs.
const PACKAGES: &[&str] = &["lb-ebpf", "tests-ebpf"];
/// The crates with inline assembly: aya's, ours, and every program that inlines their functions.
const CRATES_WITH_ASM: &str = "aya_ebpf,lb_common,lb_ebpf,lb,bench,race,delay";

/// A usable compiler and linker for BPF.
pub enum Toolchain {
    Nightly { linker: PathBuf },
    Debian { linker: PathBuf },
}

impl Toolchain {
    /// Finds a complete toolchain. Downloads nothing.
    pub fn find() -> Option<Self> {
        Self::nightly().or_else(Self::debian)
    }

    fn nightly() -> Option<Self> {
        let linker = command::find("bpf-linker")?;
        let sysroot =
            command::query(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
        let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
        core.is_dir().then_some(Self::Nightly { linker })
    }

    fn debian() -> Option<Self> {
        let linker = tools::BPF_LINKER.installed()?;
        debian_core().then_some(Self::Debian { linker })
    }

    /// The name for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nightly { .. } => "rustup's nightly",
            Self::Debian { .. } => "Debian's rustc-web",
        }
    }

    /// `cargo SUBCOMMAND` for the packages with BPF programs and the BPF target.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = self.cargo_in(tree::top(), &tree::bpf_target(), subcommand);
        cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        cargo
    }

    /// `cargo SUBCOMMAND` for the BPF target, in a tree and with a target directory.
    pub fn cargo_in(&self, sources: &Path, target: &Path, subcommand: &str) -> Command {
        let (mut cargo, linker) = match self {
            Self::Nightly { linker } => (nightly_cargo(subcommand), linker),
            Self::Debian { linker } => (debian_cargo(subcommand), linker),
        };
        // Cargo would take the host's flags from these variables instead of ours.
        for foreign in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "LD_LIBRARY_PATH"] {
            cargo.env_remove(foreign);
        }
        cargo
            .current_dir(sources)
            .args(["--locked", "--profile", "bpf", "--target", TARGET, "--target-dir"])
            .arg(target)
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", rustflags(sources));
        cargo
    }
}

/// Are Debian's compiler and its `core` for BPF installed?
pub fn debian_core() -> bool {
    let mut rustc = Command::new(DEBIAN_RUSTC);
    command::query(rustc.args(["--print", "target-libdir", "--target", TARGET]))
        .is_some_and(|directory| Path::new(directory.trim()).is_dir())
}

/// Is the clippy of Debian's compiler installed?
pub fn debian_has_clippy() -> bool {
    Path::new(DEBIAN_CLIPPY).is_file()
}

/// Does the nightly toolchain have clippy?
pub fn nightly_has_clippy() -> bool {
    command::query(Command::new("rustup").args(["run", "nightly", "cargo", "clippy", "--version"])).is_some()
}

fn nightly_cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new("rustup");
    // The cargo that runs xtask has set its own toolchain in the environment.
    cargo.args(["run", "nightly", "cargo", subcommand, "-Zbuild-std=core"]);
    for ours in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(ours);
    }
    cargo
}

fn debian_cargo(subcommand: &str) -> Command {
    // clippy-driver must match the compiler; rustup's `cargo clippy` would use another.
    let mut cargo = if subcommand == "clippy" { Command::new(DEBIAN_CLIPPY) } else { cargo::cargo() };
    cargo.arg(subcommand).env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", CRATES_WITH_ASM);
    cargo
}

/// `--btf`: the types of the maps and the program, which the kernel checks and prints.
/// `+allows-misaligned-mem-access`: packet headers have alignment 1, and without it LLVM reads them byte by byte
/// (217 instructions instead of 133 for the same pipeline).
fn rustflags(sources: &Path) -> String {
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        "-Clink-arg=--btf".into(),
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".into(),
    ];
    flags.extend(cpu(sources).map(|cpu| format!("-Ctarget-cpu={cpu}")));
    flags.join(" ")
}

/// The version of BPF that a tree's programs are compiled for. Each tree names its own, so that `bench ab` measures what was
/// released; 0.1.0 names none.
fn cpu(sources: &Path) -> Option<String> {
    let manifest: toml::Table = fs::read_to_string(sources.join("lb-ebpf/Cargo.toml")).ok()?.parse().ok()?;
    Some(manifest.get("package")?.get("metadata")?.get("bpf")?.get("cpu")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_compiled_for_the_version_of_bpf_that_their_tree_names() {
        assert!(rustflags(tree::top()).ends_with(" -Ctarget-cpu=v3"));
        assert!(!rustflags(Path::new("/nonexistent")).contains("target-cpu"));
    }
}
