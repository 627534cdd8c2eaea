//! The kernel suite, in a machine with the oldest supported kernel.
//!
//! Verifiers differ: a program that one kernel accepts may be too large or too complex for another.

use std::{env, fs, process::Stdio};

use anyhow::{Context as _, Result};

use super::runner::{self, Count};
use crate::{
    cargo::Executable,
    command,
    setup::{self, Part},
    tree, verify, vm,
};

/// Runs of the race test per family. An emulated CPU is slow, but it can be preempted between any two instructions for
/// longer than a flow's lifetime, which exposes bugs that are rare on real CPUs.
const RACE_RUNS: &str = "4000000";

/// Programs that the tests of this suite run, besides `ip`.
const TOOLS: &[&str] = &["timeout", "ethtool"];

/// Runs `verify` and these test runners in the machine.
pub fn run(runners: &[Executable], arguments: &[String]) -> Result<Count> {
    setup::ensure(&[Part::Network, Part::Vm])?;
    let mut machine = work(runners, arguments)?.machine()?;

    let (mut count, mut failed) = (Count::default(), None);
    command::read_lines(machine.stdin(Stdio::null()), |line| {
        let line = line.trim_end();
        println!("{line}");
        count = count + runner::closing(line).unwrap_or_default();
        failed = failed.or(vm::failed(line));
    })?;

    let failed = failed.context("the emulated machine stopped before its programs finished")?;
    Ok(count.of_programs_that_failed(failed))
}

fn work(runners: &[Executable], arguments: &[String]) -> Result<vm::Work> {
    let mut work = vm::Work { tools: TOOLS, ..vm::Work::default() };
    let xtask = env::current_exe().context("find the path of xtask")?;
    let verify = [&[xtask.display().to_string()], &verify::AS_BUILT.map(str::to_owned)[..]].concat();
    work.commands.push(verify);
    for runner in runners {
        let mut words = vec![runner.path.display().to_string(), "--color=never".into()];
        words.extend_from_slice(arguments);
        work.commands.push(words);
    }
    work.files.push(verify::budget_file());
    let objects = tree::bpf_objects();
    for entry in fs::read_dir(&objects).with_context(|| format!("read {}", objects.display()))? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_none() {
            work.files.push(path);
        }
    }
    work.environment.push(("XLB_BPF_DIR", objects.display().to_string()));
    work.environment.push(("XLB_RACE_RUNS", RACE_RUNS.into()));
    Ok(work)
}
