//! Files that hold a secret.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("others can use this secret (its mode is {0:04o}): run `chmod o= FILE`")]
    Exposed(u32),
}

/// Reads a secret of at most this many bytes, which nobody but the file's owner and group may read.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, Unusable> {
    // Opening a FIFO would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(Unusable::NotAFile);
    }
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(Unusable::Exposed(mode));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Unusable::TooLarge(most));
    }
    Ok(bytes)
}
