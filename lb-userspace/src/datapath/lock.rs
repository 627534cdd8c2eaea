//! One daemon per set of pins.
//!
//! The lock is on the directory of pins itself: bpffs holds no files, but its directories can be locked, and whoever
//! sees the same pins (in another mount namespace, with another state directory) sees the same lock.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use anyhow::Context;

/// Taken as long as it lives, and not a moment longer than its process.
#[derive(Debug)]
pub struct Lock(File);

/// Somebody else holds the pins. What to do depends on what they are wanted for.
#[derive(Debug, thiserror::Error)]
#[error("another xlb holds {0}")]
pub struct Taken(pub String);

impl Lock {
    /// Takes the lock of the directory, which is made if there is none.
    pub fn take(root: &Path) -> anyhow::Result<Result<Self, Taken>> {
        fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
        let directory = File::open(root).with_context(|| format!("open {}", root.display()))?;
        match directory.try_lock() {
            Ok(()) => Ok(Ok(Self(directory))),
            Err(TryLockError::WouldBlock) => Ok(Err(Taken(root.display().to_string()))),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", root.display())),
        }
    }

    /// Is it on this directory? Not if the directory that was locked has been removed, or another one has its name.
    pub fn is_of(&self, root: &Path) -> anyhow::Result<bool> {
        let locked = self.0.metadata().context("look at the directory that is locked")?;
        match fs::metadata(root) {
            Ok(found) => Ok((found.dev(), found.ino()) == (locked.dev(), locked.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("look at {}", root.display())),
        }
    }
}

impl Drop for Lock {
    /// Unlocks at once: a child that another thread is starting has a copy of the descriptor until it executes its
    /// program, and the kernel keeps the lock while there is one.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            log::warn!("unlock the pins: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_in_the_way_until_the_first_lets_go() {
        let root = tempfile::tempdir().unwrap();

        let first = Lock::take(root.path()).unwrap();
        let second = Lock::take(root.path()).unwrap();

        assert!(first.is_ok());
        assert!(second.unwrap_err().to_string().contains(root.path().to_str().unwrap()));
        drop(first);
        assert!(Lock::take(root.path()).unwrap().is_ok());
    }
    #[test]
    fn a_directory_that_was_removed_or_made_again_is_not_locked() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("xlb");
        let lock = Lock::take(&root).unwrap().unwrap();
        assert!(lock.is_of(&root).unwrap());

        fs::remove_dir(&root).unwrap();
        assert!(!lock.is_of(&root).unwrap());
        fs::create_dir(&root).unwrap();
        assert!(!lock.is_of(&root).unwrap());
    }
}
