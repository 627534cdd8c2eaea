//! `xlb check`: validates a file, offline.

use std::{collections::BTreeSet, path::Path};

use super::{console::Console, exit::Exit, failure::Failure, units};
use crate::spec::Spec;

/// A file without mistakes.
#[derive(Debug)]
pub struct Checked {
    pub spec: Spec,
    /// What it will take of the host: the memory of the maps, the source ports.
    pub costs: String,
    /// What this host lacks for it; another host may have it.
    pub warning: Option<String>,
}

pub fn check(
    console: &mut Console<'_>,
    file: &Path,
    read: fn(&Path) -> Result<Checked, Failure>,
) -> Result<u8, Failure> {
    let checked = read(file)?;

    console.line(&format!("{} is valid: {}", file.display(), summary(&checked.spec)))?;
    console.line(checked.costs.trim_end())?;
    if let Some(warning) = &checked.warning {
        console.say(&format!("warning: {warning}"))?;
    }
    Ok(Exit::Done.code())
}

fn summary(spec: &Spec) -> String {
    let backends = spec.services.iter().map(|service| service.backends.len() as u64).sum();
    let interfaces: BTreeSet<&str> =
        spec.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    format!(
        "{}, {} on {}",
        units::counted(spec.services.len() as u64, "service"),
        units::counted(backends, "backend"),
        interfaces.into_iter().collect::<Vec<_>>().join(", ")
    )
}
