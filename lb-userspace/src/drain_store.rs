//! Whether the operator has drained this node: the file `drained` in the state directory. So a restart keeps it.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use anyhow::Context as _;

use crate::durable;

const NAME: &str = "drained";

pub fn is_drained(directory: &Path) -> anyhow::Result<bool> {
    let path = directory.join(NAME);
    path.try_exists().with_context(|| format!("cannot read {}", path.display()))
}

/// When this returns, it is on disk.
pub fn save(directory: &Path, is_drained: bool) -> anyhow::Result<()> {
    if is_drained {
        return Ok(durable::write(directory, NAME, 0o640, b"")?);
    }
    let path = directory.join(NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.with_context(|| format!("cannot remove {}", path.display()))?,
    }
    let synced = File::open(directory).and_then(|it| it.sync_all());
    synced.with_context(|| format!("cannot fsync {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_until_it_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert!(!is_drained(&state).unwrap());
        save(&state, false).unwrap();

        save(&state, true).unwrap();
        save(&state, true).unwrap();
        assert!(is_drained(&state).unwrap());

        save(&state, false).unwrap();
        assert!(!is_drained(&state).unwrap());
    }
}
