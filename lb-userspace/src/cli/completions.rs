//! `xlb completions`: scripts for shells.

use clap::CommandFactory;

use super::{args::Args, console::Console, failure::Failure};
use crate::exit::Exit;

pub fn completions(console: &mut Console<'_>, shell: clap_complete::Shell) -> Result<u8, Failure> {
    // Written to memory first: the generator panics on a write error, for example on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "xlb", &mut script);
    console.bytes(&script)?;
    Ok(Exit::Done.code())
}
