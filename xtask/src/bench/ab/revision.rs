//! Another revision of this tree, built under target/ab with our compilers.
//!
//! [`METHOD`] is this tree's file in both: otherwise an older revision would be measured in an older way, and the two
//! could not be compared. What it calls to load the program, to write its maps and to make frames is each revision's own.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::Tree;
use crate::{cargo, command, toolchain::Toolchain, tree};

/// How packets are measured.
const METHOD: &str = "tests/src/bench/packets.rs";

/// Exports a revision, unless an earlier run did, and builds its BPF programs and its bench.
pub fn build(revision: &str, commit: &str) -> Result<Tree> {
    let top = tree::ab().join(commit);
    let bpf = top.join("target/bpf");
    let bench = top.join("target/release/bench");
    let objects = bpf.join("bpfel-unknown-none/bpf");
    if !bench.is_file() {
        eprintln!("build: compiling {revision} in {}", top.display());
        export(commit, &top)?;
    }
    // Cargo compiles again only if sources, compiler or flags have changed.
    compile_programs(&top, &bpf)?;
    take_method(&top)?;
    let mut cargo = cargo::cargo();
    cargo.current_dir(&top).args(["build", "--locked", "--release", "--package", "tests", "--bin", "bench"]);
    command::run(cargo.arg("--target-dir").arg(top.join("target")))
        .with_context(|| format!("compile the bench of {revision} with {METHOD} of this tree"))?;
    Ok(Tree { name: revision.to_owned(), bench, objects })
}

/// Replaces the revision's [`METHOD`] by this tree's. An identical file is not rewritten, so that its modification time
/// stays and cargo does not rebuild.
fn take_method(top: &Path) -> Result<()> {
    let (ours, theirs) = (tree::top().join(METHOD), top.join(METHOD));
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let method = read(&ours)?;
    if read(&theirs)? != method {
        fs::write(&theirs, method).with_context(|| format!("write {}", theirs.display()))?;
    }
    Ok(())
}

/// Compiles the balancer and the bench's own programs, which got a package of their own after 0.1.0.
fn compile_programs(top: &Path, target: &Path) -> Result<()> {
    let toolchain = Toolchain::find().context("found no compiler for BPF: run `cargo xtask setup`")?;
    let mut cargo = toolchain.cargo_in(top, target, "build");
    cargo.args(["--bins", "--package", "lb-ebpf"]);
    if top.join("tests/ebpf").is_dir() {
        cargo.args(["--package", "tests-ebpf"]);
    }
    command::run(&mut cargo)
}

/// The commit that a name stands for.
pub fn commit(revision: &str) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(tree::top()).args(["rev-parse", "--verify", "--end-of-options"]);
    let commit = command::query(git.arg(format!("{revision}^{{commit}}")));
    let commit =
        commit.with_context(|| format!("`{revision}` is not a revision in {}", tree::top().display()))?;
    Ok(commit.trim().to_owned())
}

/// Writes the files of a commit to a directory.
fn export(commit: &str, top: &Path) -> Result<()> {
    fs::create_dir_all(top).with_context(|| format!("create {}", top.display()))?;
    let archive = tree::ab().join(format!("{commit}.tar"));
    let mut git = Command::new("git");
    git.current_dir(tree::top()).args(["archive", "--format=tar", "--output"]);
    command::run(git.arg(&archive).arg(commit))?;
    command::run(
        Command::new("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(top),
    )?;
    fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))
}
