//! Runs other programs. Every error names the command line that failed.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::tree;

/// Runs a command to completion, with inherited input and output.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run `{}`", shown(command)))?;
    ensure!(status.success(), "`{}` failed with {status}", shown(command));
    Ok(())
}

/// Runs a command to completion and passes its output to `take` line by line. The caller checks the exit status.
pub fn read_lines(command: &mut Command, mut take: impl FnMut(&str)) -> Result<ExitStatus> {
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("run `{}`", shown(command)))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            take(&line?);
        }
    }
    Ok(child.wait()?)
}

/// The output of a command, or `None` if it does not exist or fails. For queries only.
pub fn query(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8(output.stdout).ok()
}

/// Finds a program.
pub fn find(program: &str) -> Option<PathBuf> {
    directories().map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The PATH for programs that must find what [`find`] finds.
pub fn search_path() -> String {
    directories().map(|directory| directory.display().to_string()).collect::<Vec<_>>().join(":")
}

/// The directories in PATH, those of root's programs, which a user's PATH lacks on Debian, and that of programs unpacked
/// by `setup`.
fn directories() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path: Vec<_> = env::split_paths(&path).collect();
    path.into_iter().chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).chain([tree::unpacked().join("bin")])
}

/// The command line as one would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words: Vec<_> = [program].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}
