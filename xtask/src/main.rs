//! `cargo xtask`: the developer commands, one file each.
//!
//! A command runs the commands that it depends on: `demo` installs what is missing, builds, and then runs. Nothing is
//! written outside `target/`, except packages of the distribution, which `setup` lists.

mod bench;
mod build;
mod cargo;
mod command;
mod fuzz;
mod lab;
mod lint;
mod root;
mod setup;
mod test;
mod toolchain;
mod tools;
mod tree;
mod unpacked;
mod verify;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Developer commands for xlb.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    Setup(setup::Setup),
    Build(build::Build),
    Lint(lint::Lint),
    Verify(verify::Verify),
    Test(test::Test),
    Fuzz(fuzz::Fuzz),
    Demo(lab::Demo),
    Bench(bench::Bench),
    #[command(subcommand)]
    Lab(lab::Lab),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse() {
        Xtask::Setup(setup) => setup.run(),
        Xtask::Build(build) => build.run(),
        Xtask::Lint(lint) => lint.run(),
        Xtask::Verify(verify) => verify.run(),
        Xtask::Test(test) => test.run(),
        Xtask::Fuzz(fuzz) => fuzz.run(),
        Xtask::Demo(demo) => demo.run(),
        Xtask::Bench(bench) => bench.run(),
        Xtask::Lab(lab) => lab.run(),
    };
    if let Err(error) = outcome {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
