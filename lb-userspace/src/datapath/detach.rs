//! Removes the data plane. From then on the host itself gets the traffic for the services.

use std::path::Path;

use anyhow::Context;

use super::{
    attach,
    kernel::grace_period,
    lock::{Lock, PinsInUse},
    pins,
    preflight::links,
};

/// Why it was not removed, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// A daemon holds the pins. Exit 5.
    #[error(transparent)]
    Taken(#[from] PinsInUse),
    /// Exit 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Removes the data plane whose pins are in a directory, and those of other versions. Returns what was removed, one
/// line each.
///
/// `before`: what comes before the first removal, once that is certain.
///
/// Refuses while a daemon holds the pins. Use the daemon's socket instead, or drop its datapath first.
pub fn detach(
    directory: &Path,
    before: impl FnOnce() -> anyhow::Result<()>,
) -> Result<Vec<String>, DetachError> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let _lock = Lock::take(directory)??;
    before()?;
    let older = pins::older_directories(directory)?;

    let mut removed = detach_links(directory)?;
    // A packet that is being handled may still take a slow path. If it cannot be waited for, that packet is lost.
    if let Err(error) = grace_period::wait() {
        log::debug!("{error:#}");
    }
    if pins::remove_all(directory)? {
        removed.push(format!("removed the program and its maps from {}", directory.display()));
    }
    for older in older {
        removed.extend(detach_links(&older)?);
        pins::remove_directory(&older)?;
        removed.push(format!("removed the program and its maps from {}", older.display()));
    }
    Ok(removed)
}

fn detach_links(directory: &Path) -> anyhow::Result<Vec<String>> {
    let interfaces = links::dump().context("cannot list the interfaces by netlink")?;
    let mut detached = Vec::new();
    for link in attach::pinned(directory)? {
        let name = interfaces.iter().find(|it| it.index == link.interface).map(|it| it.name.as_str());
        link.remove()?;
        detached.push(match name {
            Some(name) => format!("detached from {name}"),
            None => format!("removed the link to interface {}, which is gone", link.interface),
        });
    }
    Ok(detached)
}
