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

use crate::{command, unpacked};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_666;

/// An archive under construction. All its files belong to root.
pub struct Image {
    archive: BufWriter<File>,
    /// The paths in it.
    paths: BTreeSet<PathBuf>,
}

impl Image {
    /// Creates an empty archive.
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { archive: BufWriter::new(file), paths: BTreeSet::new() })
    }

    /// Adds a program of this host and its shared libraries, at their paths on the host. For a program that setup
    /// unpacked, it adds the launcher and everything that the launcher starts.
    pub fn program(&mut self, path: &Path) -> Result<()> {
        self.copy(path)?;
        let files = unpacked::launched(path).unwrap_or_else(|| libraries(path));
        files.iter().try_for_each(|file| self.copy(file))
    }

    /// Adds a file of this host, at its path on the host.
    pub fn copy(&mut self, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        self.file(path, &content)
    }

    /// Adds a file with this content.
    pub fn file(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        self.parent(path)?;
        self.entry(path, |entry| entry.mode(FILE), content)
    }

    /// Adds a character device with this major and minor number.
    pub fn device(&mut self, path: &Path, (major, minor): (u32, u32)) -> Result<()> {
        self.parent(path)?;
        self.entry(path, |entry| entry.mode(CHARACTER_DEVICE).rdev_major(major).rdev_minor(minor), &[])
    }

    /// Adds a directory and its parents.
    pub fn directory(&mut self, path: &Path) -> Result<()> {
        let mut all: Vec<_> = path.ancestors().filter(|path| path.parent().is_some()).collect();
        all.reverse();
        all.into_iter().try_for_each(|directory| self.entry(directory, |entry| entry.mode(DIRECTORY), &[]))
    }

    /// Completes the archive.
    pub fn finish(self) -> Result<()> {
        newc::trailer(self.archive)?.flush()?;
        Ok(())
    }

    fn parent(&mut self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.directory(parent))
    }

    /// Adds an entry, unless it is in the archive already.
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

/// The libraries of a program, from `ldd`. A statically linked program has none.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = command::query(Command::new("ldd").arg(program)).unwrap_or_default();
    unpacked::paths(&output).collect()
}
