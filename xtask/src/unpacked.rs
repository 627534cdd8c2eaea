//! Debian packages that are unpacked below target/tools/unpacked and not installed: nothing of the host changes.
//!
//! ```text
//!   NAME/          the files of the packages
//!   bin/PROGRAM    starts a program of them, with their libraries
//! ```
//!
//! Maintainer scripts do not run, so this suits a kernel and programs that need no more than their files.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{command, tree};

/// Where packages put programs.
const PROGRAMS: &[&str] = &["usr/bin", "usr/sbin", "bin", "sbin"];

/// Downloads packages, each given as apt-get takes it (`NAME` or `NAME=VERSION`), and unpacks them into one directory.
pub fn unpack(name: &str, packages: &[String]) -> Result<PathBuf> {
    let start = Instant::now();
    let directory = tree::unpacked().join(name);
    // An earlier setup may have been interrupted.
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;

    let mut download = Command::new("apt-get");
    // As root, apt would download as a user of its own, who may not write here.
    download.args(["--option", "APT::Sandbox::User=root", "download", "--quiet=2"]).args(packages);
    command::run(download.current_dir(&directory))
        .with_context(|| format!("download {name}: if a version is gone, try `apt-get update`"))?;
    let archives = archives(&directory)?;
    ensure!(!archives.is_empty(), "apt-get downloaded nothing for {name}");
    for archive in &archives {
        command::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&directory))?;
        fs::remove_file(archive).with_context(|| format!("remove {}", archive.display()))?;
    }
    eprintln!("setup: {name} unpacked in {:.1?}", start.elapsed());
    Ok(directory)
}

/// Writes the script in `bin/` that starts a program below `directory`. It exists when the program can run.
pub fn write_launcher(program: &str, directory: &Path) -> Result<()> {
    let binary = PROGRAMS.iter().map(|place| directory.join(place).join(program)).find(|path| path.is_file());
    let binary = binary.with_context(|| format!("there is no {program} below {}", directory.display()))?;
    let libraries = library_directories(directory)?;
    check_libraries(&binary, &libraries)?;

    let script = launcher(&binary, &libraries);
    let path = tree::unpacked().join("bin").join(program);
    write_executable(&path, &script).with_context(|| format!("write {}", path.display()))
}

fn archives(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = entries(directory)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    Ok(paths)
}

/// Every directory that holds a library, those nearest to the top first. The lower ones are in the configuration of the
/// host's loader, or get a link from a maintainer script.
fn library_directories(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut to_visit = vec![top.join("lib"), top.join("usr/lib")];
    to_visit.retain(|directory| directory.is_dir());
    while let Some(directory) = to_visit.pop() {
        let paths = entries(&directory)?;
        to_visit.extend(paths.iter().filter(|path| path.is_dir() && !path.is_symlink()).cloned());
        if paths.iter().any(|path| is_library(path)) {
            found.push(directory);
        }
    }
    found.sort_by_key(|directory| (directory.components().count(), directory.clone()));
    Ok(found)
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("lib") && (name.ends_with(".so") || name.contains(".so."))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
    read().with_context(|| format!("read {}", directory.display()))
}

/// The loader's own answer: libraries of the host count as well. A program that is linked statically has none.
fn check_libraries(binary: &Path, libraries: &[PathBuf]) -> Result<()> {
    let paths: Vec<_> = libraries.iter().map(|path| path.to_string_lossy()).collect();
    let told = command::ask(Command::new("ldd").arg(binary).env("LD_LIBRARY_PATH", paths.join(":")));
    let told = told.unwrap_or_default();
    let missing: Vec<_> = told.lines().map(str::trim).filter(|line| line.contains("not found")).collect();
    ensure!(missing.is_empty(), "{} lacks libraries: {}", binary.display(), missing.join("; "));
    Ok(())
}

/// All paths are relative to the script: the target directory may be moved.
fn launcher(binary: &Path, libraries: &[PathBuf]) -> String {
    let top = tree::unpacked();
    let relative = |path: &Path| format!("$top/{}", path.strip_prefix(&top).unwrap_or(path).display());
    let libraries: Vec<_> = libraries.iter().map(|path| relative(path)).collect();
    format!(
        "#!/bin/sh
# Written by `cargo xtask setup`.
top=${{0%/*}}/..
export LD_LIBRARY_PATH=\"{}\"
exec \"{}\" \"$@\"
",
        libraries.join(":"),
        relative(binary)
    )
}

fn write_executable(path: &Path, content: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o755).open(path)?;
    file.write_all(content.as_bytes())?;
    Ok(())
}
