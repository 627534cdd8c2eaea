//! A row of the application's table.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// See the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Who wrote it, and its number.
    pub key: (u32, u32),
    /// The name of the server that took it.
    pub server: String,
    /// When.
    pub at: SystemTime,
}

impl Row {
    /// Reads a row for each line: writer, number, server, and seconds since 1970, with `|` between them.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>> {
        text.lines().map(Self::parse).collect()
    }

    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<_> = line.split('|').collect();
        let [writer, n, server, at] = fields[..] else { bail!("not a row: {line}") };
        Ok(Self {
            key: (writer.parse()?, n.parse()?),
            server: server.to_owned(),
            at: UNIX_EPOCH + Duration::from_secs_f64(at.parse()?),
        })
    }
}
