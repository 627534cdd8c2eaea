//! This node's copy of what is in force, on disk. A start without etcd goes on with it.
//!
//! A file that cannot be read is an error at start: without it, the services of the file would replace those of the cluster.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{Changes, Document};
use crate::durable;

const VERSION: u32 = 1;
/// In the state directory.
pub const NAME: &str = "cluster.json";
/// More than etcd stores, with escapes.
const MAX_FILE: u64 = 32 * 1024 * 1024;
const CURE: &str = "move it away to start with the services of the configuration file";

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// `None`: the services of the file are in force.
    pub document: Option<Document>,
    /// `None`: the changes of this node are.
    pub changes: Option<Changes>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}: {CURE}")]
pub struct Unreadable {
    path: String,
    why: String,
}

/// Read first: a file of another version has other fields.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    document: Option<Document>,
    changes: Option<Changes>,
}

/// Reads the file, if there is one.
pub fn load(directory: &Path) -> Result<Copy, Unreadable> {
    let path = directory.join(NAME);
    let unreadable = |why: String| Unreadable { path: path.display().to_string(), why };
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Copy::default()),
        opened => opened.map_err(|error| unreadable(error.to_string()))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unreadable(format!("larger than {MAX_FILE} bytes")));
    }
    decode(&bytes).map_err(unreadable)
}

/// Writes the file durably.
pub fn save(directory: &Path, copy: &Copy) -> Result<(), durable::Failure> {
    let failed = |source: serde_json::Error| durable::Failure {
        path: directory.join(NAME),
        step: "encode",
        source: source.into(),
    };
    let Copy { document, changes } = copy.clone();
    let mut bytes =
        serde_json::to_vec_pretty(&Saved { version: VERSION, document, changes }).map_err(failed)?;
    bytes.push(b'\n');
    durable::write(directory, NAME, 0o640, &bytes)
}

fn decode(bytes: &[u8]) -> Result<Copy, String> {
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("format {version}, but this version of xlb reads {VERSION}"));
    }
    let saved: Saved = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(Copy { document: saved.document, changes: saved.changes })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::Revision, *};

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()).unwrap(), Copy::default());
        let copy = Copy {
            document: Some(Document { revision: Revision(12), text: "# \"x\"\nversion = 1\n".to_owned() }),
            changes: Some(Changes { revision: Revision(13), json: "{}".to_owned() }),
        };

        save(directory.path(), &copy).unwrap();

        assert_eq!(load(directory.path()).unwrap(), copy);
    }

    #[test]
    fn a_start_with_a_broken_file_fails() {
        let directory = tempfile::tempdir().unwrap();
        for broken in ["", "{}", "{\"version\": 2, \"nodes\": []}"] {
            fs::write(directory.path().join(NAME), broken).unwrap();

            let error = load(directory.path()).unwrap_err().to_string();

            assert!(error.contains("cluster.json") && error.contains("move it away"), "{error}");
        }
    }
}
