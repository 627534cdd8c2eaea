//! The key of the pickers that hash: a secret in a file of its own, which nodes share.
//!
//! The file has 96 hexadecimal digits in one line, and is readable by its owner alone. Without `key_file` in the
//! configuration, each node makes a key of its own in the state directory.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{
    durable::{self, Failure},
    limited_file::{self, Readers, Unusable},
    random,
};

/// The file's name in the state directory.
pub const NAME: &str = "hash.key";
const BYTES: usize = 48;
/// Longer than any key, with some white space.
const MAX_FILE: u64 = 256;
/// How to make a key for all nodes.
const REMEDY: &str = "make one with `(umask 077; head -c 48 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' > FILE)`, and \
                      copy it to all nodes";

/// Six words. Zero: there is no key, because no service needs one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct HashKey([u64; 6]);

/// The key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct KeyError {
    path: PathBuf,
    why: String,
}

impl HashKey {
    /// From its words.
    pub const fn new(words: [u64; 6]) -> Self {
        Self(words)
    }

    /// As the program has them.
    pub const fn words(&self) -> &[u64; 6] {
        &self.0
    }

    /// A random key.
    pub fn random() -> io::Result<Self> {
        random::bytes().map(Self::of_bytes)
    }

    /// Reads a key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let error = |why: String| KeyError { path: path.to_owned(), why };
        let bytes = limited_file::read(path, MAX_FILE, Readers::Owner).map_err(|why| match why {
            Unusable::Io(cause) if cause.kind() == io::ErrorKind::NotFound => {
                error(format!("there is no such key file: {REMEDY}"))
            }
            Unusable::Io(cause) => error(format!("cannot read the key: {cause}")),
            Unusable::NotAFile => error("the key must be a regular file".to_owned()),
            Unusable::TooLarge(_) => error(not_a_key()),
            Unusable::Exposed { .. } => error(why.to_string()),
        })?;
        parse(bytes.trim_ascii_end()).ok_or_else(|| error(not_a_key()))
    }

    /// Reads the key in this directory, and makes it first if there is none.
    pub fn read_or_make(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(NAME);
        if let Ok(false) = path.try_exists() {
            make(directory).map_err(|Failure { path, step, source }| KeyError {
                path,
                why: format!("cannot make a key: cannot {step}: {source}"),
            })?;
        }
        Self::read(&path)
    }

    fn of_bytes(bytes: [u8; BYTES]) -> Self {
        let mut words = [0; 6];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        Self(words)
    }
}

/// A key is a secret: it is not shown.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}

fn not_a_key() -> String {
    format!("not a key, which is one line of {} hexadecimal digits: {REMEDY}", 2 * BYTES)
}

fn parse(text: &[u8]) -> Option<HashKey> {
    let mut bytes = [0; BYTES];
    let (digits, []) = text.as_chunks::<2>() else { return None };
    if digits.len() != BYTES {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(digits) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    let key = HashKey::of_bytes(bytes);
    (key != HashKey::default()).then_some(key)
}

fn make(directory: &Path) -> Result<(), Failure> {
    let failed = |source| Failure { path: directory.join(NAME), step: "make", source };
    let HashKey(words) = HashKey::random().map_err(failed)?;
    let digits: String = words.iter().map(|word| format!("{word:016x}")).collect();
    durable::write(directory, NAME, 0o600, format!("{digits}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const TEXT: &str =
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f";

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");

        let made = HashKey::read_or_make(&state).unwrap();

        let mode = fs::metadata(state.join(NAME)).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, HashKey::read_or_make(&state)), (0o600, Ok(made)));
        assert_ne!(made, HashKey::read_or_make(&directory.path().join("other")).unwrap());
    }

    #[test]
    fn all_nodes_read_the_same_words() {
        let key = written(&format!("{TEXT}\n"), 0o600).unwrap();

        assert_eq!(key.words()[..2], [0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f]);
        assert_eq!(written(&TEXT.to_uppercase(), 0o400), Ok(key));
    }

    #[test]
    fn a_key_that_others_can_use_or_of_another_form_is_refused() {
        let zeros = "0".repeat(96);
        let half = &TEXT[..48];
        let signed = TEXT.replacen("00", "+1", 1);
        let cases = [
            (TEXT, 0o640, "others can use this secret (its mode is 0640): run `chmod 600 /"),
            (TEXT, 0o604, "others can use this secret"),
            (half, 0o600, "not a key, which is one line of 96 hexadecimal digits: make one with"),
            (&signed, 0o600, "not a key"),
            (&zeros, 0o600, "not a key"),
            ("", 0o600, "not a key"),
        ];
        for (text, mode, expected) in cases {
            let error = written(text, mode).unwrap_err();

            assert!(error.why.starts_with(expected), "{error}");
        }
        let absent = HashKey::read(Path::new("/nonexistent/hash.key")).unwrap_err().to_string();
        assert!(absent.starts_with("/nonexistent/hash.key: there is no such key file: make one"), "{absent}");
        assert!(HashKey::read(Path::new("/dev")).unwrap_err().why.contains("a regular file"));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", HashKey::new([7; 6])), "HashKey");
    }

    fn written(text: &str, mode: u32) -> Result<HashKey, KeyError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        HashKey::read(&path)
    }
}
