//! One daemon per set of pins.
//!
//! The lock is on the pin directory itself: bpffs holds no files, but its directories can be locked. So every process that
//! sees the same pins sees the same lock, even from another mount namespace or with another state directory.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use anyhow::Context;

/// Holds the lock until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock(File);

/// Another process holds the pins. What to do about it depends on the command.
#[derive(Debug, thiserror::Error)]
#[error("another xlb is using {0}")]
pub struct PinsInUse(pub String);

impl Lock {
    /// Locks the directory, and creates it if it is missing.
    pub fn take(root: &Path) -> anyhow::Result<Result<Self, PinsInUse>> {
        fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
        let directory = File::open(root).with_context(|| format!("cannot open {}", root.display()))?;
        match directory.try_lock() {
            Ok(()) => Ok(Ok(Self(directory))),
            Err(TryLockError::WouldBlock) => Ok(Err(PinsInUse(root.display().to_string()))),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", root.display()))
            }
        }
    }

    /// Is this directory still the locked one? False if that was removed or replaced.
    pub fn is_of(&self, root: &Path) -> anyhow::Result<bool> {
        let locked = self.0.metadata().context("cannot stat the locked directory")?;
        match fs::metadata(root) {
            Ok(found) => Ok((found.dev(), found.ino()) == (locked.dev(), locked.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot stat {}", root.display())),
        }
    }
}

impl Drop for Lock {
    /// Unlocks explicitly. A child process that another thread is starting has a copy of the descriptor until it calls
    /// exec, and the kernel keeps the lock while a copy exists.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            log::warn!("cannot unlock the pin directory: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_fails_with_the_directory_in_its_error_until_the_first_is_dropped() {
        let root = tempfile::tempdir().unwrap();

        let first = Lock::take(root.path()).unwrap();
        let second = Lock::take(root.path()).unwrap();

        assert!(first.is_ok());
        assert!(second.unwrap_err().to_string().contains(root.path().to_str().unwrap()));
        drop(first);
        assert!(Lock::take(root.path()).unwrap().is_ok());
    }
    #[test]
    fn a_directory_that_was_removed_or_replaced_is_not_locked() {
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
