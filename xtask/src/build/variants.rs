//! Builds of the product whose maps have different layouts: the lab upgrades to them and downgrades from them.
//!
//! Each is the tree with a patch of `tests/layouts/`; the product itself has no build option for this. The builds share
//! one copy of the tree and one target directory, which stay, so dependencies are compiled once. Only files that differ
//! are written, because cargo compares modification times. A build is skipped if its sources are those of the last
//! time.
//!
//! ```text
//!   target/layouts/services/xlb    the product with tests/layouts/services.patch
//!                          sources the hash of what it was built from
//!                  tree/           the copy of the tree, with the patch of the latest build
//!                  target/, bpf/   what cargo makes
//! ```

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{cargo, command, toolchain::Toolchain, tree};

/// What the product is built from.
const PRODUCT: &[&str] = &["Cargo.toml", "Cargo.lock", "lb-common", "lb-ebpf", "lb-userspace"];

/// Builds all of them.
pub fn build() -> Result<()> {
    let files = files()?;
    patches()?.iter().try_for_each(|patch| build_one(patch, &files))
}

fn patches() -> Result<Vec<PathBuf>> {
    let patches = fs::read_dir(tree::top().join("tests/layouts")).context("list tests/layouts")?;
    let mut patches = patches.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    patches.sort();
    Ok(patches)
}

fn build_one(patch: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    let name = patch.file_stem().unwrap_or_default();
    let place = tree::layouts().join(name);
    let (xlb, sources) = (place.join("xlb"), place.join("sources"));
    let hash = hash(patch, files)?;
    if xlb.exists() && fs::read_to_string(&sources).is_ok_and(|built| built == hash) {
        return Ok(());
    }

    eprintln!("build: compiling xlb with tests/layouts/{}.patch", name.display());
    let copy = tree::layouts().join("tree");
    write_patched(patch, files, &copy).with_context(|| format!("apply {}", patch.display()))?;
    let object = compile_program(&copy)?;
    let target = tree::layouts().join("target");
    let mut cargo = cargo::cargo();
    cargo.current_dir(&copy).args(["build", "--locked", "--package", "lb-userspace", "--release"]);
    command::run(cargo.arg("--target-dir").arg(&target).env("XLB_BPF_OBJECT", object))?;

    fs::create_dir_all(&place)?;
    fs::copy(target.join("release/xlb"), &xlb).with_context(|| format!("write {}", xlb.display()))?;
    fs::write(&sources, hash).with_context(|| format!("write {}", sources.display()))
}

/// Compiles the XDP program of a tree, and returns its object.
fn compile_program(sources: &Path) -> Result<PathBuf> {
    let toolchain = Toolchain::find().context("found no compiler for BPF: run `cargo xtask setup`")?;
    let target = tree::layouts().join("bpf");
    let mut cargo = toolchain.cargo_in(sources, &target, "build");
    command::run(cargo.args(["--package", "lb-ebpf", "--bin", "lb"]))?;
    Ok(target.join("bpfel-unknown-none/bpf/lb"))
}

/// The files of the tree, by their paths in it. The tree need not be a repository.
fn files() -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    list(tree::top(), &mut files)?;
    Ok(files)
}

fn list(directory: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let Ok(relative) = path.strip_prefix(tree::top()) else { continue };
        if [".git", "target"].iter().any(|other| relative == Path::new(other)) {
            continue;
        }
        if path.is_dir() {
            list(&path, files)?;
        } else if path.is_file() {
            files.insert(relative.to_owned());
        }
    }
    Ok(())
}

/// A hash of the product's sources and a patch.
fn hash(patch: &Path, files: &BTreeSet<PathBuf>) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    fs::read(patch)?.hash(&mut hasher);
    for file in files.iter().filter(|file| PRODUCT.iter().any(|part| file.starts_with(part))) {
        (file, fs::read(tree::top().join(file))?).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Makes `copy` the tree with a patch.
fn write_patched(patch: &Path, files: &BTreeSet<PathBuf>, copy: &Path) -> Result<()> {
    fs::create_dir_all(copy)?;
    remove_others(copy, copy, files)?;
    for file in files {
        write_if_different(&tree::top().join(file), &copy.join(file))?;
    }
    command::run(apply(patch)?.current_dir(copy))
}

/// `patch` with a patch of the tree: it must fit exactly.
fn apply(patch: &Path) -> Result<Command> {
    let mut command =
        Command::new(command::find("patch").context("no `patch` found: run `cargo xtask setup`")?);
    command
        .args(["--strip=1", "--fuzz=0", "--no-backup-if-mismatch", "--batch", "--silent", "--input"])
        .arg(patch);
    Ok(command)
}

fn write_if_different(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
}

/// Removes files that the tree does not have.
fn remove_others(directory: &Path, top: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, top, files)?;
        } else if !path.strip_prefix(top).is_ok_and(|file| files.contains(file)) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patches_apply_to_this_tree() {
        for patch in patches().unwrap() {
            command::run(apply(&patch).unwrap().arg("--dry-run").current_dir(tree::top())).unwrap();
        }
    }
}
