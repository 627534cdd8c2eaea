//! A start that is refused: its exit code, its lines, and that it changed nothing.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirEntryExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use tests::lab::{
    Lab,
    command::Output,
    daemon::{binary, environment},
};

pub const CONFLICT: i32 = 5;
pub const INVALID_CONFIGURATION: i32 = 6;
pub const HOST_UNFIT: i32 = 78;
/// Prefix of commands that must end: `timeout` ends one that does not, with an exit code of its own.
const LIMIT: [&str; 2] = ["timeout", "20"];

/// Runs a daemon through `words`, which must end by itself and leave the host as it was.
pub fn refused(lab: &Lab, words: &[&str]) -> Result<Output> {
    refused_with(lab, words, &[])
}

/// The same with options for `xlb run`.
pub fn refused_with(lab: &Lab, words: &[&str], options: &[&str]) -> Result<Output> {
    let before = Traces::of(lab)?;
    let variables = environment(lab.directory()).map(|(name, value)| format!("{name}={}", value.display()));
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let binary = binary()?.display().to_string();

    let output =
        lab.xlb.output(&[&LIMIT, &["env"][..], &variables, words, &[&binary, "run"], options].concat())?;

    assert_eq!(Traces::of(lab)?, before, "{}", output.stderr);
    Ok(output)
}

pub fn said(output: &Output) -> (i32, String) {
    (output.code, output.stderr.clone())
}

/// Every cause on a line of its own, and nothing else.
pub fn assert_unfit(output: &Output, causes: &[&str]) {
    let causes: String = causes.iter().map(|cause| format!("{cause}\n")).collect();
    assert_eq!(said(output), (HOST_UNFIT, format!("{causes}error: this host cannot run xlb\n")));
}

/// The traces of a daemon on a host: files, pins, and programs on interfaces.
#[derive(Debug, PartialEq)]
struct Traces {
    /// The inode of each file: a re-created file has a different one.
    files: BTreeMap<PathBuf, u64>,
    programs: BTreeMap<String, u64>,
}

impl Traces {
    fn of(lab: &Lab) -> Result<Self> {
        let mut files = BTreeMap::new();
        find(lab.directory(), &mut files)?;
        Ok(Self { files, programs: lab.xlb.programs()? })
    }
}

/// Everything below a directory.
fn find(directory: &Path, files: &mut BTreeMap<PathBuf, u64>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files.insert(entry.path(), entry.ino());
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        }
    }
    Ok(())
}
