//! The daemon's socket, if it is given neither by a flag nor by the environment.

use std::path::{Path, PathBuf};

use crate::paths;

/// From the file; otherwise the default. Errors in the file are reported by `xlb check`.
pub fn of_file(config: &Path) -> PathBuf {
    let text = std::fs::read_to_string(config).ok();
    let table = text.and_then(|text| text.parse::<toml::Table>().ok());
    let socket = table.as_ref().and_then(|table| table.get("api")?.get("socket")?.as_str());
    PathBuf::from(socket.unwrap_or(paths::SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_asked_and_may_be_absent_or_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("xlb.toml");
        assert_eq!(of_file(&config), Path::new(paths::SOCKET));

        for (text, socket) in [
            ("[api]\nsocket = \"/run/other/xlb.sock\"\n[nonsense]\n", "/run/other/xlb.sock"),
            ("[api]\nsocket = 5", paths::SOCKET),
            ("api = [", paths::SOCKET),
        ] {
            std::fs::write(&config, text).unwrap();

            assert_eq!(of_file(&config), Path::new(socket), "{text}");
        }
    }
}
