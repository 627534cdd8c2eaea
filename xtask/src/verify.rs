//! `verify`: whether the kernel takes the XDP programs, and what they cost it.
//!
//! - **Budget.** The kernel's verifier walks every path of a program, and says how many instructions it visited. A small
//!   change can multiply that without any test noticing, so `xtask/verify.toml` has a line for every program, none above
//!   [`budget::MOST`], and one for all of an object.
//! - **No mem\* call on the hot path.** LLVM turns copies of byte arrays (a MAC address is enough) into calls of
//!   `memcpy`, `memmove` and `memset`, which on BPF are loops over bytes: 4 ns for six of them. [`calls`] decodes every
//!   call instruction in the product's object. Only functions that `verify.toml` calls cold may make those.
//!
//! Loading needs root: `verify` builds as the user, and then becomes itself as root.

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

/// Load the XDP programs, and compare the verifier's work with its budget
#[derive(Args)]
pub struct Verify {
    /// Take the programs as they were built last
    #[arg(long)]
    no_build: bool,
}

impl Verify {
    pub fn run(&self) -> Result<()> {
        if !self.no_build {
            setup::ensure(&[Part::Toolchain])?;
            build::objects(&[])?;
        }
        if root::is_us() { verify() } else { as_built() }
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
        complaints
            .extend(visits(&budget, object, &bytes).with_context(|| format!("load {}", path.display()))?);
        complaints.extend(memory_calls(&budget, object, &bytes)?);
    }

    ensure!(complaints.is_empty(), "verify:\n  {}", complaints.join("\n  "));
    Ok(())
}

/// Prints what the verifier visited, and complains of what was too much.
fn visits(budget: &Budget, object: &str, bytes: &[u8]) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut total = 0;
    for program in load::programs(bytes)? {
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
        complaints.extend(budget::complaint(&name, program.visited, most, budget::MOST));
    }
    let most = budget.total(object);
    println!("{:24} {total:>8} {:>8}", format!("{object}, all"), shown(most));
    complaints.extend(budget::complaint(object, total, most, budget::MOST_IN_ALL));
    Ok(complaints)
}

fn shown(budget: Option<u32>) -> String {
    budget.map_or_else(|| "none".to_owned(), |most| most.to_string())
}

/// The product must be fast; what measures it or races with it need not be.
const PRODUCT: &str = "lb";

fn memory_calls(budget: &Budget, object: &str, bytes: &[u8]) -> Result<Vec<String>> {
    if object != PRODUCT {
        return Ok(Vec::new());
    }
    let mut calls = calls::to_memory_functions(bytes)?;
    calls.retain(|call| !budget.is_cold(object, &call.caller));
    let complain = |call: MemoryCall| {
        let MemoryCall { caller, callee, instruction } = call;
        format!(
            "{object}: `{caller}` calls `{callee}` at instruction {instruction} (`llvm-objdump -S` shows the line)"
        )
    };
    Ok(calls.into_iter().map(complain).collect())
}

/// The arguments that take the programs as they were built last.
pub const AS_BUILT: [&str; 2] = ["verify", "--no-build"];

/// Verifies the programs as they were built last, as root.
pub fn as_built() -> Result<()> {
    let ourselves = env::current_exe().context("find our own executable")?;
    let mut command = root::command(ourselves, &[], "loading XDP programs to verify them")?;
    command::run(command.args(AS_BUILT))
}
