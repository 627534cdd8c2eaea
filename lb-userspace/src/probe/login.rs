//! The login of a check at a database: its keys in the configuration, and the password.
//!
//! The password is in a file, which is read at each login, so that a changed one needs no reload.

use std::path::PathBuf;

use toml::de::DeValue;

use super::Fault;
use crate::{
    document::{Key, Keys, value},
    limited_file::{self, Readers},
    text::quote,
};

/// Longer than names are in any of the databases.
const MAX_NAME: usize = 128;
const MAX_PASSWORD: u64 = 1024;

pub const USER: Key<String> = Key::new("user", |it| name(it, "user"));
pub const DATABASE: Key<String> = Key::new("database", |it| name(it, "database"));
pub const PASSWORD_FILE: Key<PathBuf> = Key::new("password_file", value::secret_path);

/// Where the password is. `None`: there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password(pub Option<PathBuf>);

impl Password {
    pub fn of(keys: &Keys<'_>) -> Self {
        Self(keys.value(&PASSWORD_FILE))
    }

    /// What is wrong with the file.
    pub fn check_file(&self) -> Result<(), String> {
        self.load().map(drop)
    }

    /// The password, without the end of its line.
    pub fn read(&self) -> Result<Option<Vec<u8>>, Fault> {
        self.load().map_err(Fault::local)
    }

    fn load(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(path) = &self.0 else { return Ok(None) };
        let named = |error: String| format!("{}: {error}", path.display());
        let text = limited_file::read(path, MAX_PASSWORD, Readers::OwnerAndGroup)
            .map_err(|error| named(error.to_string()))?;
        password(text).map(Some).map_err(named)
    }
}

/// One line. PostgreSQL and MySQL end a password with a zero byte.
fn password(mut text: Vec<u8>) -> Result<Vec<u8>, String> {
    for end in [b'\n', b'\r'] {
        if text.last() == Some(&end) {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err("it is empty: expected a password".to_owned());
    }
    if text.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return Err("it is not a password: expected one line of text".to_owned());
    }
    Ok(text)
}

/// A name of a user or a database.
fn name(value: &DeValue<'_>, what: &str) -> Result<String, String> {
    let name = value::text(value)?;
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(format!("{} is not a {what}: expected a name of 1 to {MAX_NAME} bytes", quote(name)));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_password_is_one_line() {
        for (text, expected) in [("mon", "mon"), ("mon\n", "mon"), ("m n \r\n", "m n ")] {
            assert_eq!(password(text.into()), Ok(expected.into()), "{text:?}");
        }
        for wrong in ["", "\n", "\r\n", "mon\n\n", "a\nb\n", "a\0"] {
            assert!(password(wrong.into()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_does_not_blame_the_backend() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, "mon\n").unwrap();
        let password = Password(Some(path.clone()));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            matches!(password.read(), Err(Fault::Undecided(why)) if why.contains("others can use this secret"))
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(password.read(), Ok(Some(b"mon".to_vec())));
        assert_eq!(Password(None).read(), Ok(None));
    }

    #[test]
    fn names_are_bounded_and_printable() {
        let read = |text: &str| name(DeValue::parse(text).unwrap().get_ref(), "user");

        assert_eq!(read("'xlb monitor'"), Ok("xlb monitor".to_owned()));
        for wrong in ["''", "\"a\\u0000b\"", "\"a\\n\"", "5", &format!("'{}'", "x".repeat(MAX_NAME + 1))] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
