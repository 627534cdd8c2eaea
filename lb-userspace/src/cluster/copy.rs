//! This node's copy of what is in force, on disk. A start without etcd goes on with it.
//!
//! A file that cannot be read is an error at start: without it, the services of the file would replace those of the cluster.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Changes, Document, Revision, Stored};
use crate::{
    durable, limited_file,
    problem::{Problem, ProblemKind},
};

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
    /// The etcd that they are from. `None`: not known.
    pub etcd: Option<u64>,
}

impl Copy {
    /// As it was stored.
    pub fn stored(&self) -> Stored {
        let Self { document, changes, etcd } = self.clone();
        Stored { document, changes, etcd: etcd.unwrap_or_default() }
    }

    /// Can that have followed, in the same etcd? Otherwise it may be something old, or of others.
    pub fn precedes(&self, stored: &Stored) -> Result<(), Problem> {
        let (had, has) = (self.stored().revisions(), stored.revisions());
        let has_changed = [
            stored.document.as_ref().map(|it| self.document.as_ref() != Some(it)),
            stored.changes.as_ref().map(|it| self.changes.as_ref() != Some(it)),
        ]
        .contains(&Some(true));
        let is_another = self.etcd.is_some_and(|it| it != stored.etcd);
        let is_older = |had: Option<Revision>, has: Option<Revision>| has.is_some() && has < had;
        let was_restored = is_older(had.document, has.document) || is_older(had.changes, has.changes);
        if !has_changed || !(is_another || was_restored) {
            return Ok(());
        }
        let shown = |it: Option<Revision>| it.map_or_else(|| "none".to_owned(), |it| it.to_string());
        let detail = format!(
            "etcd is another cluster, or was restored: it has revisions {} (services) and {} (changes), and {} and {} are in force \
             here: `xlb cluster pull > FILE`, check FILE, and confirm it on each node with `xlb cluster push FILE`",
            shown(has.document),
            shown(has.changes),
            shown(had.document),
            shown(had.changes),
        );
        Err(Problem::new(ProblemKind::Conflict, detail))
    }
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
    etcd: Option<u64>,
}

/// Reads the file, if there is one.
pub fn load(directory: &Path) -> Result<Copy, Unreadable> {
    let path = directory.join(NAME);
    let unreadable = |why: String| Unreadable { path: path.display().to_string(), why };
    let bytes = limited_file::read_if_present(&path, MAX_FILE).map_err(|why| unreadable(why.to_string()))?;
    let Some(bytes) = bytes else { return Ok(Copy::default()) };
    decode(&bytes).map_err(unreadable)
}

/// Writes the file durably.
pub fn save(directory: &Path, copy: &Copy) -> Result<(), durable::Failure> {
    let Copy { document, changes, etcd } = copy.clone();
    durable::write_json(directory, NAME, &Saved { version: VERSION, document, changes, etcd })
}

fn decode(bytes: &[u8]) -> Result<Copy, String> {
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("format {version}, but this version of xlb reads {VERSION}"));
    }
    let saved: Saved = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(Copy { document: saved.document, changes: saved.changes, etcd: saved.etcd })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()).unwrap(), Copy::default());
        let copy = Copy {
            document: Some(Document { revision: Revision(12), text: "# \"x\"\nversion = 1\n".to_owned() }),
            changes: Some(Changes { revision: Revision(13), json: "{}".to_owned() }),
            etcd: Some(u64::MAX),
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
