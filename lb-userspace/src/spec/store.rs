//! The overlay on disk.
//!
//! A file that cannot be parsed is never overwritten at start; the operator decides.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    BackendName,
    overlay::{Change, Definition, Overlay},
    rules,
};
use crate::durable;

/// The version of the format.
const VERSION: u32 = 1;
/// Maximum size of a file: more than [`MAX_CHANGES`](super::overlay::MAX_CHANGES) with the longest names.
const MAX_FILE: u64 = 128 * 1024 * 1024;
const NAME: &str = "overlay.json";

/// The place of the overlay.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// The overlay could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: cannot {step}: {source}", path.display())]
    Io { path: PathBuf, step: &'static str, source: io::Error },
    #[error("{}: written by another version of xlb (format {found}, this version reads {VERSION}): {CURE}", path.display())]
    Foreign { path: PathBuf, found: u32 },
    #[error("{}: not a valid overlay: {detail}: {CURE}", path.display())]
    Corrupt { path: PathBuf, detail: String },
}

/// A text is not an overlay that this version knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("written by another version of xlb (format {0}, this version reads {VERSION})")]
    Foreign(u32),
    #[error("not a valid overlay: {0}")]
    Corrupt(String),
}

/// The remedy for an unreadable overlay. The file is kept until the operator moves it.
const CURE: &str = "move it away to start without the changes made by commands";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    backends: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    service: String,
    backend: String,
    change: Change,
}

/// The part that all versions of the format share.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

impl Store {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The directory of everything that outlives the daemon.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file's path.
    pub fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// Reads the overlay, which is empty before the first change.
    pub fn load(&self) -> Result<Overlay, StoreError> {
        let path = self.path();
        let failed = |step| move |source| StoreError::Io { path: self.path(), step, source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Overlay::default()),
            opened => opened.map_err(failed("open"))?,
        };

        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed("read"))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(StoreError::Corrupt { path, detail: format!("larger than {MAX_FILE} bytes") });
        }
        decode(&bytes).map_err(|why| match why {
            Unreadable::Foreign(found) => StoreError::Foreign { path, found },
            Unreadable::Corrupt(detail) => StoreError::Corrupt { path, detail },
        })
    }

    /// Writes the overlay durably.
    pub fn save(&self, overlay: &Overlay) -> Result<(), StoreError> {
        let bytes =
            encode(overlay).map_err(|source| StoreError::Io { path: self.path(), step: "encode", source })?;
        let step = |durable::Failure { path, step, source }| StoreError::Io { path, step, source };
        durable::write(&self.directory, NAME, 0o640, &bytes).map_err(step)
    }
}

/// The text of the file.
pub fn encode(overlay: &Overlay) -> io::Result<Vec<u8>> {
    let row = |(name, change): (&BackendName, &Change)| Row {
        service: name.service.clone(),
        backend: name.backend.clone(),
        change: change.clone(),
    };
    let stored = Stored { version: VERSION, backends: overlay.entries.iter().map(row).collect() };
    let mut bytes = serde_json::to_vec_pretty(&stored)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The text is checked like input from the CLI.
pub fn decode(bytes: &[u8]) -> Result<Overlay, Unreadable> {
    let corrupt = |error: serde_json::Error| Unreadable::Corrupt(error.to_string());
    let form: Form = serde_json::from_slice(bytes).map_err(corrupt)?;
    if form.version != VERSION {
        return Err(Unreadable::Foreign(form.version));
    }
    let stored: Stored = serde_json::from_slice(bytes).map_err(corrupt)?;

    let mut overlay = Overlay::default();
    for row in stored.backends {
        check(&row).map_err(Unreadable::Corrupt)?;
        let name = BackendName::new(&row.service, &row.backend);
        if overlay.entries.insert(name, row.change).is_some() {
            return Err(Unreadable::Corrupt(format!("{}/{} is listed twice", row.service, row.backend)));
        }
    }
    Ok(overlay)
}

fn check(row: &Row) -> Result<(), String> {
    rules::name(&row.service)?;
    rules::name(&row.backend)?;
    for Definition { address, weight, backup: _, max_flows: _ } in
        row.change.file.iter().chain(&row.change.command)
    {
        rules::endpoint(*address)?;
        rules::weight(*weight)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
