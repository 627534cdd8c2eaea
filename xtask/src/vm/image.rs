//! An initramfs: a cpio archive that the kernel unpacks into its first file system.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use cpio::newc;

use crate::command;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_666;

/// An archive that grows. All in it is root's.
pub struct Image {
    archive: BufWriter<File>,
    /// What is in it.
    paths: BTreeSet<PathBuf>,
}

impl Image {
    /// Begins an archive.
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { archive: BufWriter::new(file), paths: BTreeSet::new() })
    }

    /// A program of this host and the libraries that it is linked with, at the paths that they have here.
    pub fn program(&mut self, path: &Path) -> Result<()> {
        self.copy(path)?;
        libraries(path).iter().try_for_each(|library| self.copy(library))
    }

    /// A file of this host, at the path that it has here.
    pub fn copy(&mut self, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        self.file(path, &content)
    }

    /// A file with this content.
    pub fn file(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        self.parent(path)?;
        self.entry(path, |entry| entry.mode(FILE), content)
    }

    /// A character device with this major and minor number.
    pub fn device(&mut self, path: &Path, (major, minor): (u32, u32)) -> Result<()> {
        self.parent(path)?;
        self.entry(path, |entry| entry.mode(CHARACTER_DEVICE).rdev_major(major).rdev_minor(minor), &[])
    }

    /// A directory, and those above it.
    pub fn directory(&mut self, path: &Path) -> Result<()> {
        let mut all: Vec<_> = path.ancestors().filter(|path| path.parent().is_some()).collect();
        all.reverse();
        all.into_iter().try_for_each(|directory| self.entry(directory, |entry| entry.mode(DIRECTORY), &[]))
    }

    /// Ends the archive.
    pub fn finish(self) -> Result<()> {
        newc::trailer(self.archive)?.flush()?;
        Ok(())
    }

    fn parent(&mut self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.directory(parent))
    }

    /// Nothing, if it is in the archive already.
    fn entry(
        &mut self,
        path: &Path,
        kind: impl FnOnce(newc::Builder) -> newc::Builder,
        content: &[u8],
    ) -> Result<()> {
        if !self.paths.insert(path.to_owned()) {
            return Ok(());
        }
        let name = path.strip_prefix("/").context("paths in the machine are absolute")?.to_string_lossy();
        let size =
            u32::try_from(content.len()).with_context(|| format!("{} is too large", path.display()))?;
        let number = u32::try_from(self.paths.len())?;
        let mut entry = kind(newc::Builder::new(&name).ino(number)).write(&mut self.archive, size);
        entry.write_all(content)?;
        entry.finish()?;
        Ok(())
    }
}

/// What `ldd` says a program needs. One that is linked statically needs nothing.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let told = command::ask(Command::new("ldd").arg(program)).unwrap_or_default();
    told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
