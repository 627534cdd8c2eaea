//! Commands of the host, each with a time limit.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// No command of a lab takes longer; the longest moves 200 MB on a busy machine.
pub const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What `timeout` (coreutils) exits with when the limit was reached.
const TIMED_OUT: i32 = 124;

/// The result of a command.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; 128 + n for signal n, as in a shell.
    pub code: i32,
    /// Invalid UTF-8 is replaced.
    pub stdout: String,
    /// Invalid UTF-8 is replaced.
    pub stderr: String,
}

/// Runs a command to its end, with any exit code.
pub fn output(words: &[&str]) -> Result<Output> {
    output_with_input(words, "")
}

/// Runs a command that must succeed, and returns what it wrote.
pub fn run(words: &[&str]) -> Result<String> {
    run_with_input(words, "")
}

/// Runs a command that reads `input` and must succeed.
pub fn run_with_input(words: &[&str], input: &str) -> Result<String> {
    let output = output_with_input(words, input)?;
    if output.code == TIMED_OUT {
        bail!("`{}` did not end within {TIME_LIMIT:?}", words.join(" "));
    }
    if output.code != 0 {
        bail!("`{}` exited with {}: {}{}", words.join(" "), output.code, output.stderr.trim_end(), of(input));
    }
    Ok(output.stdout)
}

fn output_with_input(words: &[&str], input: &str) -> Result<Output> {
    let run = || -> std::io::Result<std::process::Output> {
        let mut child = Command::new("timeout")
            .args(["--kill-after=1", &TIME_LIMIT.as_secs().to_string()])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command may end before it has read everything: its exit code counts.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    let output = run().with_context(|| format!("run `{}`", words.join(" ")))?;

    Ok(Output {
        code: code_of(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn code_of(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;

    const SIGNALLED: i32 = 128;
    status.code().unwrap_or_else(|| SIGNALLED + status.signal().unwrap_or_default())
}

fn of(input: &str) -> String {
    if input.is_empty() { String::new() } else { format!("\nin:\n{input}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_names_itself_and_what_it_said() {
        let error = run(&["sh", "-c", "echo no good >&2; exit 3"]).unwrap_err();

        assert_eq!(error.to_string(), "`sh -c echo no good >&2; exit 3` exited with 3: no good");
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(run_with_input(&["cat"], "as written").unwrap(), "as written");
    }
}
