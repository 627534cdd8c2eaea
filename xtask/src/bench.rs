//! `bench`: measures this tree. `bench ab`: compares it with another revision.

mod ab;

use std::ffi::OsString;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::lab;

const AS_ROOT: &str = "the bench, which loads XDP programs and creates network namespaces,";

/// Measure nanoseconds per packet, and compare throughput with nftables and HAProxy
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    #[command(subcommand)]
    comparison: Option<Comparison>,
    /// Arguments for the benchmark, such as --json FILE
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

#[derive(Subcommand)]
enum Comparison {
    Ab(ab::Ab),
}

impl Bench {
    pub fn run(self) -> Result<()> {
        match self.comparison {
            Some(Comparison::Ab(ab)) => ab.run(),
            None => {
                lab::prepare()?;
                lab::become_root("bench", self.arguments, AS_ROOT)
            }
        }
    }
}
