//! The overlay on disk.
//!
//! A save is a temporary file beside it, an fsync, a rename, and an fsync of the directory: whoever loses power finds
//! the old overlay or the new one, whole. What cannot be understood is never overwritten by loading it; the operator
//! decides.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    BackendName,
    overlay::{Change, Definition, Overlay},
    rules,
};

/// The form that is written here.
const VERSION: u32 = 1;
/// Bytes of a file: twice what all backends with the longest names take.
const MAX_FILE: u64 = 4 * 1024 * 1024;
const NAME: &str = "overlay.json";
const TEMPORARY: &str = "overlay.json.new";

/// Where the overlay is kept.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// The overlay could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: cannot {step}: {source}", path.display())]
    Io { path: PathBuf, step: &'static str, source: io::Error },
    #[error("{}: written by another version of xlb (form {found}, this one reads {VERSION}): {CURE}", path.display())]
    Foreign { path: PathBuf, found: u32 },
    #[error("{}: not an overlay of xlb: {detail}: {CURE}", path.display())]
    Corrupt { path: PathBuf, detail: String },
}

/// Nothing is lost: the file stays until somebody moves it.
const CURE: &str = "move it away to start without the changes that were made by command";

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

/// What every form has.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

impl Store {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The file's path.
    pub fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// Reads the overlay; there is none before the first change.
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
        decode(&bytes, &path)
    }

    /// Writes the overlay, so that it is there after a loss of power.
    pub fn save(&self, overlay: &Overlay) -> Result<(), StoreError> {
        let temporary = self.directory.join(TEMPORARY);
        let failed = |path: &Path, step| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, step, source }
        };
        let bytes = encode(overlay).map_err(failed(&temporary, "encode"))?;

        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&self.directory)
            .map_err(failed(&self.directory, "create"))?;
        // A crash may have left one, with any content and any owner.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&temporary, "remove")(error)),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&temporary)
            .map_err(failed(&temporary, "create"))?;
        file.write_all(&bytes).map_err(failed(&temporary, "write"))?;
        file.sync_all().map_err(failed(&temporary, "fsync"))?;
        fs::rename(&temporary, self.path()).map_err(failed(&self.path(), "replace"))?;
        // The rename is in the directory, and is on disk when that is.
        File::open(&self.directory).and_then(|it| it.sync_all()).map_err(failed(&self.directory, "fsync"))
    }
}

fn encode(overlay: &Overlay) -> io::Result<Vec<u8>> {
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

/// What is read is trusted no more than what the CLI sends.
fn decode(bytes: &[u8], path: &Path) -> Result<Overlay, StoreError> {
    let corrupt = |detail: String| StoreError::Corrupt { path: path.to_owned(), detail };
    let form: Form = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
    if form.version != VERSION {
        return Err(StoreError::Foreign { path: path.to_owned(), found: form.version });
    }
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;

    let mut overlay = Overlay::default();
    for row in stored.backends {
        check(&row).map_err(corrupt)?;
        let name = BackendName::new(&row.service, &row.backend);
        if overlay.entries.insert(name, row.change).is_some() {
            return Err(corrupt(format!("{}/{} is there twice", row.service, row.backend)));
        }
    }
    Ok(overlay)
}

fn check(row: &Row) -> Result<(), String> {
    rules::name(&row.service)?;
    rules::name(&row.backend)?;
    for Definition { address, weight, backup: _ } in row.change.file.iter().chain(&row.change.wish) {
        rules::endpoint(*address)?;
        rules::weight(*weight)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::api::view::AdminState;

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("not/there/yet"));

        assert_eq!(store.load().unwrap(), Overlay::default());
        store.save(&overlay()).unwrap();
        assert_eq!(store.load().unwrap(), overlay());
        store.save(&Overlay::default()).unwrap();

        assert_eq!(store.load().unwrap(), Overlay::default());
    }

    #[test]
    fn the_form_on_disk_stays() {
        let golden = r#"{
  "version": 1,
  "backends": [
    {
      "service": "web",
      "backend": "web-1",
      "change": {
        "file": {
          "address": "10.0.0.11:80",
          "weight": 100,
          "backup": false
        },
        "wish": {
          "address": "10.0.0.11:80",
          "weight": 50,
          "backup": true
        },
        "admin_state": "drain"
      }
    },
    {
      "service": "web",
      "backend": "web-2",
      "change": {
        "file": null,
        "wish": {
          "address": "[fd00::12]:80",
          "weight": 100,
          "backup": false
        },
        "admin_state": "ready"
      }
    }
  ]
}
"#;

        assert_eq!(String::from_utf8(encode(&overlay()).unwrap()).unwrap(), golden);
        assert_eq!(decode(golden.as_bytes(), Path::new("x")).unwrap(), overlay());
    }

    #[test]
    fn a_crash_before_the_rename_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        store.save(&overlay()).unwrap();
        let half = &encode(&Overlay::default()).unwrap()[..9];

        fs::write(directory.path().join(TEMPORARY), half).unwrap();

        assert_eq!(store.load().unwrap(), overlay());
        store.save(&Overlay::default()).unwrap();
        assert_eq!(store.load().unwrap(), Overlay::default());
        assert!(!directory.path().join(TEMPORARY).exists());
    }

    #[test]
    fn a_link_left_in_the_way_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join(TEMPORARY)).unwrap();

        Store::new(directory.path()).save(&overlay()).unwrap();

        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }

    #[test]
    fn others_can_not_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());

        store.save(&overlay()).unwrap();

        assert_eq!(fs::metadata(store.path()).unwrap().permissions().mode() & 0o137, 0);
    }

    #[test]
    fn what_cannot_be_understood_is_named_and_stays() {
        let foreign = r#"{"version": 2, "something": "else"}"#;
        let twice = String::from_utf8(encode(&overlay()).unwrap()).unwrap().replace("web-2", "web-1");
        let heavy = String::from_utf8(encode(&overlay()).unwrap()).unwrap().replace("50", "5000");
        let cases = [
            ("", "not an overlay of xlb: EOF"),
            ("{\"version\": 1", "not an overlay of xlb: EOF"),
            ("\u{0}\u{0}\u{0}", "not an overlay of xlb: expected value"),
            ("{\"version\": 1}", "missing field `backends`"),
            (foreign, "written by another version of xlb (form 2, this one reads 1)"),
            (&twice, "web/web-1 is there twice"),
            (&heavy, "`5000` is out of bounds"),
        ];

        for (content, message) in cases {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::new(directory.path());
            fs::write(store.path(), content).unwrap();

            let told = store.load().unwrap_err().to_string();

            assert!(told.contains(message), "{told}");
            assert!(told.starts_with(&store.path().display().to_string()) && told.ends_with(CURE), "{told}");
            assert_eq!(fs::read_to_string(store.path()).unwrap(), content);
        }
    }

    #[test]
    fn a_full_disk_or_a_wrong_place_keeps_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("file/below"));
        fs::write(directory.path().join("file"), "").unwrap();

        let told = store.save(&overlay()).unwrap_err().to_string();

        assert!(told.contains("file/below: cannot create"), "{told}");
    }

    fn overlay() -> Overlay {
        let definition = |address: &str, weight, backup| {
            Some(Definition { address: address.parse().unwrap(), weight, backup })
        };
        let drained = Change {
            file: definition("10.0.0.11:80", 100, false),
            wish: definition("10.0.0.11:80", 50, true),
            admin_state: AdminState::Drain,
        };
        let added =
            Change { file: None, wish: definition("[fd00::12]:80", 100, false), admin_state: AdminState::Ready };
        let entries = [(BackendName::new("web", "web-1"), drained), (BackendName::new("web", "web-2"), added)];
        Overlay { entries: entries.into() }
    }
}
