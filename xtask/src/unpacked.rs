//! Debian packages that are unpacked under target/tools/unpacked instead of being installed, so the host does not change.
//!
//! ```text
//!   NAME/          the files of the packages
//!   bin/PROGRAM    launcher that starts the program with these libraries
//! ```
//!
//! Maintainer scripts do not run, so this works only for a kernel and for programs that need nothing but their files.

use std::{
    fs::{self, File},
    io::Write as _,
    iter,
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::command;

/// Directories of programs in packages.
const PROGRAMS: &[&str] = &["usr/bin", "usr/sbin", "bin", "sbin"];

/// Beginnings of a launcher's lines.
const WRITTEN_BY: &str = "# Written by `cargo xtask setup`.";
const LIBRARIES: &str = "export LD_LIBRARY_PATH=\"";
const START: &str = "exec \"";

/// Downloads packages (`NAME` or `NAME=VERSION`, as for apt-get) and unpacks them into the directory `name` under `top`.
pub fn unpack(top: &Path, name: &str, packages: &[String]) -> Result<PathBuf> {
    let start = Instant::now();
    let directory = top.join(name);
    // An earlier setup may have been interrupted.
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;

    let mut download = Command::new("apt-get");
    // As root, apt would download as its own user, which cannot write here.
    download.args(["--option", "APT::Sandbox::User=root", "download", "--quiet=2"]).args(packages);
    command::run(download.current_dir(&directory)).with_context(|| {
        format!("download {name}: if a version is no longer available, run `apt-get update`")
    })?;
    let archives = archives(&directory)?;
    ensure!(!archives.is_empty(), "apt-get downloaded nothing for {name}");
    for archive in &archives {
        command::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&directory))?;
        fs::remove_file(archive).with_context(|| format!("remove {}", archive.display()))?;
    }
    keep_links_inside(&directory)?;
    eprintln!("setup: {name} unpacked in {:.1?}", start.elapsed());
    Ok(directory)
}

/// Writes the script in `bin/` under `top` that starts a program from `directory`, after checking that its libraries
/// exist. Returns its path.
pub fn write_launcher(top: &Path, program: &str, directory: &Path) -> Result<PathBuf> {
    let binary = PROGRAMS.iter().map(|place| directory.join(place).join(program)).find(|path| path.is_file());
    let binary = binary.with_context(|| format!("no {program} under {}", directory.display()))?;
    let libraries = library_directories(directory)?;
    check_libraries(&binary, &libraries)?;

    let script = launcher(top, &binary, &libraries);
    let path = top.join("bin").join(program);
    write_executable(&path, &script).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// The program that a launcher starts, and its libraries; `None` if the file is no launcher.
pub fn launched(launcher: &Path) -> Option<Vec<PathBuf>> {
    let script = fs::read_to_string(launcher).ok().filter(|script| script.contains(WRITTEN_BY))?;
    let script = script.replace("$top", &launcher.parent()?.parent()?.to_string_lossy());
    let word_after = |start| script.lines().find_map(|line| line.strip_prefix(start)?.split('"').next());
    let (libraries, binary) = (word_after(LIBRARIES)?, word_after(START)?);
    let loaded = command::query(Command::new("ldd").arg(binary).env("LD_LIBRARY_PATH", libraries))?;
    Some([binary.into()].into_iter().chain(paths(&loaded)).collect())
}

/// The paths in the output of `ldd`, such as `libc.so.6 => /lib/libc.so.6 (0x7f0012340000)`.
pub fn paths(output: &str) -> impl Iterator<Item = PathBuf> {
    output.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from)
}

fn archives(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = entries(directory)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    Ok(paths)
}

/// Absolute links in a package point to files of the package, such as `/sbin/insmod` to `/bin/kmod`.
fn keep_links_inside(top: &Path) -> Result<()> {
    let mut to_visit = vec![top.to_owned()];
    while let Some(directory) = to_visit.pop() {
        for path in entries(&directory)? {
            if path.is_symlink() {
                keep_link_inside(top, &directory, &path)
                    .with_context(|| format!("change {}", path.display()))?;
            } else if path.is_dir() {
                to_visit.push(path);
            }
        }
    }
    Ok(())
}

fn keep_link_inside(top: &Path, directory: &Path, link: &Path) -> Result<()> {
    let target = fs::read_link(link)?;
    let Ok(target) = target.strip_prefix("/") else { return Ok(()) };
    let depth = directory.strip_prefix(top)?.components().count();
    let up: PathBuf = iter::repeat_n("..", depth).collect();
    fs::remove_file(link)?;
    Ok(symlink(up.join(target), link)?)
}

/// All directories with libraries, those nearest to the top first. On an installed system, the lower ones are in the
/// loader's configuration or linked by a maintainer script.
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

/// Asks the loader (`ldd`), which also finds libraries of the host. A statically linked program needs none.
fn check_libraries(binary: &Path, libraries: &[PathBuf]) -> Result<()> {
    let paths: Vec<_> = libraries.iter().map(|path| path.to_string_lossy()).collect();
    let output = command::query(Command::new("ldd").arg(binary).env("LD_LIBRARY_PATH", paths.join(":")));
    let output = output.unwrap_or_default();
    let missing: Vec<_> = output.lines().map(str::trim).filter(|line| line.contains("not found")).collect();
    ensure!(missing.is_empty(), "{}: missing libraries: {}", binary.display(), missing.join("; "));
    Ok(())
}

/// All paths are relative to the script, so the target directory can be moved.
fn launcher(top: &Path, binary: &Path, libraries: &[PathBuf]) -> String {
    let relative = |path: &Path| format!("$top/{}", path.strip_prefix(top).unwrap_or(path).display());
    let libraries: Vec<_> = libraries.iter().map(|path| relative(path)).collect();
    format!(
        "#!/bin/sh
{WRITTEN_BY}
top=${{0%/*}}/..
{LIBRARIES}{}\"
{START}{}\" \"$@\"
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
