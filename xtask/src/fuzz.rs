//! `fuzz`: feeds the parsers of untrusted bytes with random ones.
//!
//! ```text
//!   fuzz/src/bin/TARGET.rs ─▶ lb-userspace/src/fuzzing.rs: TARGET ─▶ the parser
//!   fuzz/corpus/TARGET/       first inputs, written by hand
//!   target/fuzz/              the build, inputs that were found, and inputs that failed, which are tried again
//! ```
//!
//! libFuzzer needs the compiler to count branches, which every compiler does that builds xlb. The parsers have no unsafe code, so
//! AddressSanitizer, which needs a nightly compiler, would find nothing more.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{
    cargo::{self, Executable},
    setup::{self, Part},
    tree,
};

/// What one input may take. An answer of a server is never read beyond 64 KiB.
const LIMITS: [&str; 3] = ["-max_len=70000", "-timeout=5", "-rss_limit_mb=512"];
/// Counters for branches, and the values that are compared.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Feed the parsers of what servers send with random bytes
#[derive(Args)]
pub struct Fuzz {
    /// Only this parser: a file in fuzz/src/bin (default: all)
    target: Option<String>,
    /// Time for each parser
    #[arg(long, default_value_t = 10, value_name = "N")]
    seconds: u32,
}

impl Fuzz {
    pub fn run(&self) -> Result<()> {
        setup::ensure(&[Part::Fuzz])?;
        let targets = self.build()?;
        let mut failed = Vec::new();
        for target in &targets {
            if let Err(error) = self.feed(target) {
                eprintln!("fuzz: {}: {error:#}", target.name);
                failed.push(target.name.as_str());
            }
        }
        ensure!(failed.is_empty(), "inputs that fail: {}", failed.join(", "));
        eprintln!("fuzz: ok");
        Ok(())
    }

    fn build(&self) -> Result<Vec<Executable>> {
        let mut cargo = cargo::cargo();
        cargo.arg("build");
        let mut flags = vec!["--cfg", "fuzzing"];
        flags.extend(COVERAGE);
        // With a target, build scripts and macros do without these flags.
        let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        cargo.current_dir(tree::top().join("fuzz")).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo.args(["--locked", "--target", &host, "--target-dir"]).arg(tree::fuzz());
        match &self.target {
            Some(target) => cargo.args(["--bin", target]),
            None => cargo.arg("--bins"),
        };
        cargo::executables(&mut cargo)
    }

    /// Prints a line about a run in which nothing failed.
    fn feed(&self, target: &Executable) -> Result<()> {
        let (found, failures) = (directory("corpus", &target.name)?, directory("failures", &target.name)?);
        let mut fuzzer = Command::new(&target.path);
        fuzzer.args(LIMITS).arg(format!("-max_total_time={}", self.seconds));
        fuzzer
            .arg(format!("-artifact_prefix={}/", failures.display()))
            .arg("-print_final_stats=1")
            // libFuzzer writes what it finds to the first of these, and tries all of them.
            .args([found, failures]);
        let first = tree::top().join("fuzz/corpus").join(&target.name);
        fuzzer.args(first.is_dir().then_some(first));

        let output = fuzzer.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("run {}", target.path.display()))?;
        let words = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            eprintln!("{words}");
            bail!("{}", failure(&words, &target.path));
        }
        let figure = |name| statistic(&words, name).unwrap_or("?");
        let (inputs, rate) = (figure("number_of_executed_units"), figure("average_exec_per_sec"));
        let memory = figure("peak_rss_mb");
        eprintln!("fuzz: {}: {inputs} inputs, {rate} per second, {memory} MB", target.name);
        Ok(())
    }
}

/// A directory of this target below `target/fuzz`.
fn directory(kind: &str, target: &str) -> Result<PathBuf> {
    let directory = tree::fuzz().join(kind).join(target);
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    Ok(directory)
}

/// `stat::peak_rss_mb:    63`
fn statistic<'w>(words: &'w str, name: &str) -> Option<&'w str> {
    let prefix = format!("stat::{name}:");
    words.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::trim)
}

/// How to run the input again that failed.
fn failure(words: &str, program: &Path) -> String {
    let written =
        words.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, file)| file);
    match written {
        Some(file) => format!("an input fails; once more: {} {file}", program.display()),
        None => format!("{} failed", program.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_failures_are_found_in_the_words_of_the_fuzzer() {
        let words =
            "Done 9 runs in 1 second(s)\nstat::average_exec_per_sec:     9\nstat::peak_rss_mb:   63\n";
        let failed = "artifact_prefix='/f/'; Test unit written to /f/crash-1\nBase64: AA==\n";

        assert_eq!(statistic(words, "peak_rss_mb"), Some("63"));
        assert_eq!(statistic(words, "number_of_executed_units"), None);
        assert_eq!(failure(failed, Path::new("/bin/it")), "an input fails; once more: /bin/it /f/crash-1");
        assert_eq!(failure("", Path::new("/bin/it")), "/bin/it failed");
    }
}
