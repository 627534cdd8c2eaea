//! Runs cargo and reads from its messages what it built.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{command, tree};

/// The cargo that runs xtask, so that the user's toolchain is used.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(tree::top());
    cargo
}

/// A program that cargo built.
pub struct Executable {
    pub name: String,
    pub path: PathBuf,
    /// Is it a test runner? When cargo builds tests of a package, it builds the package's programs too.
    pub is_test: bool,
}

/// Runs a cargo command that builds, and returns its executables, including those that were up to date.
pub fn executables(cargo: &mut Command) -> Result<Vec<Executable>> {
    cargo.arg("--message-format=json-render-diagnostics");
    let mut executables = Vec::new();
    let status = command::read_lines(cargo, |line| executables.extend(executable(line)))?;
    ensure!(status.success(), "`{}` failed with {status}", command::shown(cargo));
    executables.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(executables)
}

/// The executable in one line of cargo's messages, if there is one.
fn executable(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = message["executable"].as_str()?;
    let name = message["target"]["name"].as_str()?;
    let is_test = message["profile"]["test"].as_bool()?;
    Some(Executable { name: name.to_owned(), path: path.into(), is_test })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_artifacts_that_can_run_are_executables() {
        let library = r#"{"reason":"compiler-artifact","target":{"name":"lb_common"},"executable":null}"#;

        assert!(executable(library).is_none());
        assert!(executable(r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(executable("not a message").is_none());
    }

    #[test]
    fn programs_and_test_runners_are_distinguished() {
        let artifact = |test: bool| {
            let profile = format!(r#""profile":{{"test":{test}}}"#);
            format!(r#"{{"target":{{"name":"lab"}},{profile},"executable":"/tree/target/debug/lab"}}"#)
        };

        let program = executable(&artifact(false)).unwrap();
        let runner = executable(&artifact(true)).unwrap();

        assert_eq!(
            (program.name.as_str(), program.path, program.is_test),
            ("lab", "/tree/target/debug/lab".into(), false)
        );
        assert!(runner.is_test);
    }
}
