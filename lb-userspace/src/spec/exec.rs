//! `[exec]`: whether health checks may run programs.
//!
//! Programs have the rights of the daemon, which is often root. So only root may be able to write the file.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _};

use crate::document::{
    mistakes::Report,
    table::{Given, Table},
    value,
};

/// How many programs may run at once.
const MOST: u32 = 64;
const DEFAULT_MOST: u32 = 8;

/// As written.
pub struct Written {
    allow: Given<bool>,
    max: Given<u32>,
}

/// What a file may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Only root can write it, or it is no file.
    Root,
    Others,
}

/// What a file allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    Refused,
    /// At most this many at once, over all backends.
    Allowed(u32),
}

impl Writers {
    /// Of an open file. An access list counts, too: its mask is the group's part of the mode (acl(5)). A user who can write to
    /// the directory can put another file in its place, but not one of root's.
    pub fn of(file: &Metadata) -> Self {
        if file.uid() == 0 && file.mode() & 0o022 == 0 { Self::Root } else { Self::Others }
    }
}

impl Written {
    pub fn read(table: Option<Table<'_>>) -> Self {
        let Some(mut table) = table else { return Self { allow: Given::Absent, max: Given::Absent } };
        let written = Self {
            allow: table.optional("allow", value::boolean),
            max: table.optional("max", |value| value::integer(value, 1..=MOST)),
        };
        table.close();
        written
    }

    pub fn validate(self, writers: Writers, report: &Report<'_>) -> Programs {
        let most = self.max.or(DEFAULT_MOST);
        match self.allow {
            Given::Good(allow) if allow.value => {
                if writers == Writers::Others {
                    report.add(
                        allow.span,
                        "programs are allowed only in a file that only root can write: run `chown root FILE` and \
                         `chmod go-w FILE`",
                    );
                }
                Programs::Allowed(most)
            }
            // A value that cannot be read is a mistake of its own.
            Given::Wrong => Programs::Allowed(most),
            Given::Good(_) | Given::Absent => Programs::Refused,
        }
    }
}
