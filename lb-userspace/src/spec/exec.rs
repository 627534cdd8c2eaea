//! `[exec]`: whether health checks may run programs.
//!
//! Programs have the rights of the daemon, which is often root. So only root may be able to write or replace the file.

use std::{fs::Metadata, path::Path};

use crate::{
    document::{
        mistakes::Report,
        table::{Given, Table},
        value,
    },
    ownership,
};

const ROOT: u32 = 0;
/// How many programs may run at once.
const MOST: u32 = 64;
pub const DEFAULT_MOST: u32 = 8;

/// As written.
pub struct Written {
    allow: Given<bool>,
    max: Given<u32>,
}

/// What a file may allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Only root can write and replace it, or it is a text that is not in a file.
    Root,
    /// What others can change, and the remedy.
    Others(String),
}

/// What a file allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programs {
    pub are_allowed: bool,
    /// At most this many at once, over all backends.
    pub most_at_once: u32,
}

impl Writers {
    /// Of an open file, and what is at its path. A pipe has no owner that means anything.
    pub fn of(path: &Path, file: &Metadata) -> Self {
        if !file.is_file() {
            return Self::Others("this is none".to_owned());
        }
        match ownership::check(path, ROOT) {
            Ok(()) => Self::Root,
            Err(error) => Self::Others(error.to_string()),
        }
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
        let are_allowed = match self.allow {
            Given::Good(allow) => {
                if let (true, Writers::Others(why)) = (allow.value, writers) {
                    report.add(
                        allow.span,
                        format!("programs are allowed only in a regular file that only root can write or replace: {why}"),
                    );
                }
                allow.value
            }
            // A value that cannot be read is a mistake of its own.
            Given::Wrong => true,
            Given::Absent => false,
        };
        Programs { are_allowed, most_at_once: self.max.or(DEFAULT_MOST) }
    }
}
