//! Removes the data plane: traffic for the services goes to the host from then on.

use std::path::Path;

use anyhow::Context;

use super::{
    attach,
    lock::{Lock, Taken},
    pins,
    preflight::links,
};

/// Why it was not removed, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// A daemon has it. Exit 5.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// Exit 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Removes the data plane of all layouts beside `pins`. Returns what was removed, one line each.
///
/// Refuses while a daemon holds the pins: it must have dropped its datapath, or be asked through its socket.
pub fn detach(directory: &Path) -> Result<Vec<String>, DetachError> {
    let root = pins::root(directory)?;
    if !root.is_dir() {
        return Ok(Vec::new());
    }
    let _lock = Lock::take(root)??;
    let mut layouts = pins::other_layouts(directory)?;
    layouts.push(directory.to_path_buf());

    let mut removed = Vec::new();
    for layout in layouts {
        removed.extend(detach_links(&layout)?);
        for directory in [pins::unfinished(&layout), layout] {
            if directory.is_dir() {
                pins::remove(&directory)?;
                removed.push(format!("removed the program and its maps from {}", directory.display()));
            }
        }
    }
    Ok(removed)
}

fn detach_links(layout: &Path) -> anyhow::Result<Vec<String>> {
    let interfaces = links::dump().context("ask netlink for the interfaces")?;
    let mut detached = Vec::new();
    for link in attach::pinned(layout)? {
        let name = interfaces.iter().find(|it| it.index == link.interface).map(|it| it.name.as_str());
        link.remove()?;
        detached.push(match name {
            Some(name) => format!("detached from {name}"),
            None => format!("removed the link to interface {}, which is gone", link.interface),
        });
    }
    Ok(detached)
}
