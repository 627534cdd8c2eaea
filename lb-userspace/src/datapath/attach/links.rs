//! Keeps the program on its interfaces while the daemon lives.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Mode, attached, link, pinned::Pinned};
use crate::datapath::{
    Attached,
    kernel::load::Program,
    pins,
    preflight::links::{self, Link},
};

/// The interfaces that the program was attached to at start, by name and mode.
#[derive(Debug)]
pub struct Links {
    program: Program,
    directory: PathBuf,
    interfaces: Vec<(String, Mode)>,
}

impl Links {
    pub(in crate::datapath) fn new(program: Program, directory: &Path, attached: &[Attached]) -> Self {
        let mode = |it: &Attached| if it.mode == Mode::Native.name() { Mode::Native } else { Mode::Generic };
        let interfaces = attached.iter().map(|it| (it.name.clone(), mode(it))).collect();
        Self { program, directory: directory.to_path_buf(), interfaces }
    }

    /// What the program is attached to. An interface that went away and came back is attached to again.
    pub fn refresh(&mut self) -> anyhow::Result<Vec<Attached>> {
        let links = links::dump().context("ask netlink for the interfaces")?;
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

    fn keep(&mut self, link: &Link, mode: Mode, links: &[Link]) -> anyhow::Result<()> {
        let path = pins::link(&self.directory, link.index);
        if path.exists() {
            let pinned = Pinned::read(path, link.index)?;
            if pinned.is_alive(links) {
                return Ok(());
            }
            pinned.remove()?;
        }
        let index = link.index;
        let attach = |program: &mut Program| -> anyhow::Result<()> {
            let made = link::attach(program.xdp()?, index, mode)?;
            link::pin(made, &pins::link(&self.directory, index))
        };
        attach(&mut self.program).with_context(|| format!("attach to {}, which came back", link.name))?;
        log::warn!("attached to {} ({}), which came back", link.name, mode.name());
        Ok(())
    }
}
