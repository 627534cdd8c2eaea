//! Names by counter number, kept in two maps that only the daemon uses.
//!
//! The program counts by number. Which name a number has must outlive the daemon; otherwise a restart could show one
//! backend's counts under another name.

use anyhow::{Context, ensure};

use crate::spec::BackendName;

/// The names of the maps.
pub const BACKENDS: &str = "BACKEND_NAMES";
pub const SERVICES: &str = "SERVICE_NAMES";

/// `SERVICE/BACKEND` or `SERVICE`, padded with zeros.
pub type Record = [u8; 128];

/// Encodes a name.
pub fn write(name: &str) -> anyhow::Result<Record> {
    let mut record = [0; size_of::<Record>()];
    ensure!(name.len() <= record.len(), "the name `{name}` is longer than {} bytes", record.len());
    ensure!(!name.contains('\0'), "the name `{}` contains a zero byte", name.escape_default());
    record[..name.len()].copy_from_slice(name.as_bytes());
    Ok(record)
}

/// Reads a service's name.
pub fn read(record: &Record) -> anyhow::Result<String> {
    let end = record.iter().position(|byte| *byte == 0).unwrap_or(record.len());
    let name = std::str::from_utf8(&record[..end]).context("a pinned name is not UTF-8")?;
    Ok(name.to_owned())
}

/// Reads a backend's name.
pub fn read_backend(record: &Record) -> anyhow::Result<BackendName> {
    read(record)?.parse().map_err(anyhow::Error::msg).context("cannot read a pinned name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_round_trip_up_to_the_full_length() {
        for name in ["web/web-1", &format!("{}/{}", "s".repeat(63), "b".repeat(64))] {
            let record = write(name).unwrap();

            assert_eq!(read(&record).unwrap(), name);
            assert_eq!(read_backend(&record).unwrap().to_string(), name);
        }
    }

    #[test]
    fn invalid_names_are_rejected() {
        assert!(write(&"n".repeat(129)).is_err());
        assert!(write("a\0b").is_err());
        assert!(read(&[0xff; 128]).is_err());
        assert!(read_backend(&[b'n'; 128]).is_err());
    }
}
