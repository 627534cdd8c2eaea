//! Files in the state directory, which outlive the daemon and a loss of power.
//!
//! Writing makes a temporary file, syncs it, renames it, and syncs the directory: after a loss of power there is the old
//! file or the new one, complete.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {step}: {source}", path.display())]
pub struct Failure {
    pub path: PathBuf,
    pub step: &'static str,
    pub source: io::Error,
}

/// Writes a value as JSON with a line end. The daemon's user and group can read the file.
pub fn write_json(directory: &Path, name: &str, value: &impl Serialize) -> Result<(), Failure> {
    let failed = |error: serde_json::Error| Failure {
        path: directory.join(name),
        step: "encode",
        source: error.into(),
    };
    let mut bytes = serde_json::to_vec_pretty(value).map_err(failed)?;
    bytes.push(b'\n');
    write(directory, name, 0o640, &bytes)
}

/// Writes a file of this mode in a directory, which is made if there is none.
pub fn write(directory: &Path, name: &str, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    let (path, temporary) = (directory.join(name), directory.join(format!("{name}.new")));
    let failed = |path: &Path, step| {
        let path = path.to_owned();
        move |source| Failure { path, step, source }
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750).create(directory).map_err(failed(directory, "create"))?;
    // A crash may have left one, with any content and owner.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(&temporary, "remove")(error));
        }
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(&temporary).map_err(failed(&temporary, "create"))?;
    file.write_all(bytes).map_err(failed(&temporary, "write"))?;
    file.sync_all().map_err(failed(&temporary, "fsync"))?;
    fs::rename(&temporary, &path).map_err(failed(&path, "replace"))?;
    // The rename is durable once the directory is synced.
    File::open(directory).and_then(|it| it.sync_all()).map_err(failed(directory, "fsync"))
}
