//! `verify`: does the kernel accept the XDP programs, and at what cost?
//!
//! - **Budget.** The kernel's verifier walks every path of a program and reports how many instructions it visited. A small
//!   change can multiply that number unnoticed, so `xtask/verify.toml` has a budget for every program, at most
//!   [`budget::MAX_PROGRAM`], and one for each object as a whole.
//! - **No mem\* calls on the hot path.** LLVM turns copies of byte arrays (even a MAC address) into calls of `memcpy`,
//!   `memmove` and `memset`, which are byte loops on BPF: 4 ns for six bytes. [`calls`] decodes every call instruction
//!   in the product's object. Only slow paths may make such calls: all programs except the main one, which has the
//!   object's name.
//!
//! Loading needs root: `verify` builds as the user, and then runs itself as root.

mod budget;
mod calls;
mod load;

use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    build, command, root,
    setup::{self, Part},
    tree,
};
use budget::Budget;
pub use budget::file as budget_file;
use calls::MemoryCall;
use load::Loaded;

/// Load the XDP programs and compare the verifier's work with the budget
#[derive(Args)]
pub struct Verify {
    /// Use the programs of the last build
    #[arg(long)]
    no_build: bool,
}

impl Verify {
    pub fn run(&self) -> Result<()> {
        if !self.no_build {
            setup::ensure(&[Part::Toolchain])?;
            build::objects(&[])?;
        }
        if root::is_root() { verify() } else { as_built() }
    }
}

fn verify() -> Result<()> {
    let budget = Budget::read()?;
    let mut complaints = Vec::new();

    println!(
        "{:24} {:>8} {:>8} {:>12} {:>8}",
        "object/program", "visited", "budget", "instructions", "jited"
    );
    for object in budget.objects() {
        let path = tree::bpf_objects().join(object);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let programs = load::programs(&bytes).with_context(|| format!("load {}", path.display()))?;
        complaints.extend(visits(&budget, object, &programs));
        complaints.extend(memory_calls(object, &programs, &bytes)?);
    }

    ensure!(complaints.is_empty(), "verify:\n  {}", complaints.join("\n  "));
    Ok(())
}

/// Prints what the verifier visited, and returns complaints about exceeded budgets.
fn visits(budget: &Budget, object: &str, programs: &[Loaded]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut total = 0;
    for program in programs {
        total += program.visited;
        let name = format!("{object}/{}", program.name);
        let most = budget.most(object, &program.name);
        println!(
            "{name:24} {:>8} {:>8} {:>12} {:>8}",
            program.visited,
            shown(most),
            program.instructions,
            program.jited_bytes,
        );
        complaints.extend(budget::complaint(&name, program.visited, most, budget::MAX_PROGRAM));
    }
    let most = budget.total(object);
    println!("{:24} {total:>8} {:>8}", format!("{object}, all"), shown(most));
    complaints.extend(budget::complaint(object, total, most, budget::MAX_TOTAL));
    complaints
}

fn shown(budget: Option<u32>) -> String {
    budget.map_or_else(|| "none".to_owned(), |most| most.to_string())
}

/// Only the product is checked for memory calls; those of bench and tests need not be fast.
const PRODUCT: &str = "lb";

fn memory_calls(object: &str, programs: &[Loaded], bytes: &[u8]) -> Result<Vec<String>> {
    if object != PRODUCT {
        return Ok(Vec::new());
    }
    let is_slow_path =
        |caller: &str| caller != PRODUCT && programs.iter().any(|program| program.name == caller);
    let mut calls = calls::to_memory_functions(bytes)?;
    calls.retain(|call| !is_slow_path(&call.caller));
    let complain = |call: MemoryCall| {
        let MemoryCall { caller, callee, instruction } = call;
        format!(
            "{object}: `{caller}` calls `{callee}` at instruction {instruction} (`llvm-objdump -S` shows the line)"
        )
    };
    Ok(calls.into_iter().map(complain).collect())
}

/// The arguments that verify the programs of the last build.
pub const AS_BUILT: [&str; 2] = ["verify", "--no-build"];

/// Verifies the programs of the last build, as root.
pub fn as_built() -> Result<()> {
    let xtask = env::current_exe().context("find the path of xtask")?;
    let mut command = root::command(xtask, &[], "loading XDP programs to verify them")?;
    command::run(command.args(AS_BUILT))
}
