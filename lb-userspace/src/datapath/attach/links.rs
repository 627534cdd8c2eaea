//! Keeps the program attached and pinned while the daemon runs.
//!
//! The daemon holds a handle of each map and link, so removing a pin destroys nothing: the same object is pinned again
//! and flows continue. The data plane is lost only if the daemon dies after a pin is removed and before it is restored.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use aya::programs::links::FdLink;

use super::{attached, link, pinned::Pinned};
use crate::{
    datapath::{
        Attached,
        kernel::{handles::Handles, load::Program},
        lock::Lock,
        pins,
        preflight::links::{self, Link},
    },
    named::Named,
    spec::LinkMode,
};

/// The interfaces that the program was attached to at start, by name and mode.
#[derive(Debug)]
pub struct Links {
    lock: Lock,
    directory: PathBuf,
    handles: Handles,
    /// By interface index.
    held: BTreeMap<u32, FdLink>,
    interfaces: Vec<(String, LinkMode)>,
}

impl Links {
    pub(in crate::datapath) fn open(
        program: Program,
        lock: Lock,
        directory: &Path,
        attached: &[Attached],
    ) -> anyhow::Result<Self> {
        let held =
            attached.iter().map(|it| Ok((it.index.0, link::open(&pins::link(directory, it.index.0))?)));
        Ok(Self {
            lock,
            directory: directory.to_path_buf(),
            handles: Handles::open(directory, program)?,
            held: held.collect::<anyhow::Result<_>>()?,
            interfaces: attached.iter().map(|it| (it.name.clone(), it.mode)).collect(),
        })
    }

    /// The names of all pins except the links.
    pub fn pin_names(&self) -> Vec<String> {
        self.handles.pin_names()
    }

    /// Lists the interfaces that the program is attached to. Restores missing pins, and attaches again to
    /// interfaces that were removed and added again.
    pub fn refresh(&mut self) -> anyhow::Result<Vec<Attached>> {
        let links = links::dump().context("cannot list the interfaces by netlink")?;
        self.held.retain(|index, _| links.iter().any(|link| link.index == *index));
        self.restore_pins()?;
        let mut found = Vec::new();
        for (name, mode) in self.interfaces.clone() {
            let Some(link) = links.iter().find(|link| link.name == name) else { continue };
            match self.keep(link, mode, &links) {
                Ok(()) => found.push(attached(link, mode)),
                Err(error) => log::error!("{error:#}"),
            }
        }
        Ok(found)
    }

    /// Pins again what is no longer pinned.
    fn restore_pins(&mut self) -> anyhow::Result<()> {
        let directory = self.directory.clone();
        if !self.lock.is_of(&directory)? {
            self.lock = Lock::take(&directory)??;
        }
        let made = self.pin_missing(&directory)?;
        if !made.is_empty() {
            log::warn!("restored missing pins in {}: {}", directory.display(), made.join(", "));
        }
        Ok(())
    }

    /// Maps and the program come first: a failed pin consumes its link, and if one object cannot be pinned, none can.
    fn pin_missing(&mut self, directory: &Path) -> anyhow::Result<Vec<String>> {
        let mut made = self.handles.pin_missing(directory)?;
        let is_missing = |index: &u32| !pins::link(directory, *index).exists();
        let missing: Vec<u32> = self.held.keys().copied().filter(is_missing).collect();
        for index in missing {
            let path = pins::link(directory, index);
            let held =
                self.held.remove(&index).ok_or_else(|| anyhow!("there is no link to interface {index}"))?;
            self.held.insert(index, link::pin(held, &path)?);
            made.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        Ok(made)
    }

    fn keep(&mut self, link: &Link, mode: LinkMode, links: &[Link]) -> anyhow::Result<()> {
        let path = pins::link(&self.directory, link.index);
        if path.exists() {
            let pinned = Pinned::read(path.clone(), link.index)?;
            if pinned.is_alive(links) {
                return Ok(());
            }
            self.held.remove(&link.index);
            pinned.remove()?;
        }
        let context = || format!("cannot attach to {} again", link.name);
        let made = link::attach(self.handles.program().xdp()?, link.index, mode).with_context(context)?;
        let held = link::pin(made, &path).with_context(context)?;
        self.held.insert(link.index, held);
        log::warn!("attached to {} ({}) again", link.name, mode.name());
        Ok(())
    }
}
