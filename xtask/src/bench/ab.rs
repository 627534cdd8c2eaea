//! `bench ab REVISION`: compares the cost of a packet in this tree with that in another revision, in one run.
//!
//! The layouts of maps differ between revisions, so each tree measures its own programs with its own bench: `bench packets
//! --quick --json FILE`, with this tree's way of measuring ([`revision`]). Rows of the same name are compared. Each pass
//! runs both trees, and every other pass in the opposite order. A tree runs on one CPU, then on two at once, with a process
//! and a table for each. Some of the ratios have goals ([`goals`]).
//!
//! ```text
//!   target/ab/COMMIT/    the other tree, with a target directory of its own; stays, so that it is built once
//!   target/ab/N.json     figures of the bench on CPU N
//! ```

mod figures;
mod goals;
mod revision;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::AS_ROOT;
use crate::{
    build, command, lab, root,
    setup::{self, Part},
    tree,
};
use figures::{Comparison, Figures};

/// Compare the cost of packets in this tree with another revision, on one CPU and on two at once
#[derive(Args)]
pub struct Ab {
    /// The revision to compare with: a commit, tag or branch, such as d2920d1, which is 0.1.0
    revision: String,
    /// How many times each tree is measured; a pass takes two to three minutes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
}

/// The CPUs that the bench uses; runs on one CPU use the last.
const CPUS: [usize; 2] = [0, 1];

/// A tree that is measured.
struct Tree {
    name: String,
    bench: PathBuf,
    objects: PathBuf,
}

impl Ab {
    pub fn run(&self) -> Result<()> {
        setup::ensure(&[Part::Toolchain, Part::Network])?;
        let commit = revision::commit(&self.revision)?;
        let other = revision::build(&self.revision, &commit)?;
        build::objects(&[])?;
        let this =
            Tree { name: "this tree".into(), bench: lab::built("bench")?, objects: tree::bpf_objects() };

        let (mut alone, mut at_once) = (Comparison::default(), Comparison::default());
        for pass in 0..self.passes {
            eprintln!("bench: pass {} of {}", pass + 1, self.passes);
            let (a, b) = if pass % 2 == 0 {
                let a = other.figures()?;
                (a, this.figures()?)
            } else {
                let b = this.figures()?;
                (other.figures()?, b)
            };
            alone.add([a.alone, b.alone]);
            at_once.add([a.at_once, b.at_once]);
        }

        println!(
            "A: {}, B: {}; medians of {} passes; B / A: median (least, most)",
            other.name, this.name, self.passes
        );
        alone.print("net nanoseconds per packet, on one CPU");
        at_once.print("two CPUs at once: nanoseconds between packets, both CPUs counted");
        goals::judge(&commit, [("one CPU", &alone), ("two CPUs", &at_once)])
    }
}

/// What a tree measured in one pass.
struct Pass {
    alone: Figures,
    at_once: Figures,
}

impl Tree {
    fn figures(&self) -> Result<Pass> {
        Ok(Pass { alone: self.measure(&CPUS[1..])?, at_once: self.measure(&CPUS)? })
    }

    /// Runs the bench on these CPUs at the same time.
    fn measure(&self, cpus: &[usize]) -> Result<Figures> {
        let started = cpus.iter().map(|&cpu| self.start(cpu)).collect::<Result<Vec<_>>>()?;
        let figures = started.into_iter().zip(cpus).map(|(bench, &cpu)| self.finish(bench, cpu));
        Figures::together(figures.collect::<Result<Vec<_>>>()?)
    }

    fn start(&self, cpu: usize) -> Result<Child> {
        let environment =
            [("XLB_BPF_DIR", self.objects.display().to_string()), ("PATH", command::search_path())];
        let mut bench = root::command("taskset", &environment, AS_ROOT)?;
        bench.args(["--cpu-list", &cpu.to_string()]).arg(&self.bench);
        bench.args(["packets", "--quick", "--json"]).arg(json(cpu));
        bench.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        bench.spawn().with_context(|| format!("run `{}`", command::shown(&bench)))
    }

    fn finish(&self, bench: Child, cpu: usize) -> Result<Figures> {
        let output = bench.wait_with_output()?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the benchmark of {} on CPU {cpu} failed: {message}", self.name);
        let path = json(cpu);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Figures::parse(&text).with_context(|| format!("figures of {}: {}", self.name, path.display()))
    }
}

fn json(cpu: usize) -> PathBuf {
    tree::ab().join(format!("{cpu}.json"))
}
