//! Files of a limited size that the operator names, such as secrets.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use crate::text::printable;

/// Who may read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    Owner,
    OwnerAndGroup,
    Anyone,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("others can use this secret (its mode is {mode:04o}): run `{remedy}`")]
    Exposed { mode: u32, remedy: String },
}

impl Readers {
    /// The permissions that the file must not have, and the mode that takes them away.
    const fn forbidden(self) -> (u32, &'static str) {
        match self {
            Self::Owner => (0o077, "600"),
            Self::OwnerAndGroup => (0o007, "o="),
            Self::Anyone => (0, ""),
        }
    }

    /// An error if others than these can use the file.
    pub fn allow(self, path: &Path, file: &Metadata) -> Result<(), Unusable> {
        let mode = file.permissions().mode() & 0o777;
        let (forbidden, right) = self.forbidden();
        if mode & forbidden == 0 {
            return Ok(());
        }
        let remedy = format!("chmod {right} {}", printable(&path.display().to_string()));
        Err(Unusable::Exposed { mode, remedy })
    }
}

/// The same of a file that others may read, if there is one.
pub fn read_if_present(path: &Path, most: u64) -> Result<Option<Vec<u8>>, Unusable> {
    match read(path, most, Readers::Anyone) {
        Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// Reads a file of at most this many bytes. It is refused if others than these can use it.
pub fn read(path: &Path, most: u64, readers: Readers) -> Result<Vec<u8>, Unusable> {
    // Opening a FIFO would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(Unusable::NotAFile);
    }
    let file = File::open(path)?;
    readers.allow(path, &file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Unusable::TooLarge(most));
    }
    Ok(bytes)
}
