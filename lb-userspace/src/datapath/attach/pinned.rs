//! Pinned links of an earlier daemon.

use std::{
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aya::programs::links::{FdLink, PinnedLink};

use crate::datapath::{
    pins,
    preflight::links::{self, Link},
};

/// How long to wait for a program to leave an interface. The kernel removes it after an RCU grace period.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
const LEAVE_POLL: Duration = Duration::from_millis(5);

/// A pinned link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    pub path: PathBuf,
    /// From the name of the pin.
    pub interface: u32,
    /// The id of its program, now or when it was alive.
    pub program: u32,
}

/// The links pinned in a directory. The caller holds its lock. Links that a killed daemon had half pinned are
/// finished first.
pub fn pinned(directory: &Path) -> anyhow::Result<Vec<Pinned>> {
    pins::finish_links(directory)?;
    let read = |interface| Pinned::read(pins::link(directory, interface), interface);
    pins::links(directory)?.into_iter().map(read).collect()
}

impl Pinned {
    pub fn read(path: PathBuf, interface: u32) -> anyhow::Result<Self> {
        let info = PinnedLink::from_pin(&path).and_then(|link| FdLink::from(link).info());
        let program = info.with_context(|| format!("cannot open {}", path.display()))?.program_id();
        Ok(Self { path, interface, program })
    }

    /// Does the interface run this link's program? False if the interface with this index is gone or was replaced.
    pub fn is_alive(&self, links: &[Link]) -> bool {
        links.iter().any(|link| {
            link.index == self.interface && link.xdp.is_some_and(|xdp| xdp.program == self.program)
        })
    }

    /// Detaches, and waits until the program has left the interface.
    pub fn remove(&self) -> anyhow::Result<()> {
        pins::remove_file(&self.path)?;
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while self.is_alive(&links::dump().context("cannot list the interfaces by netlink")?) {
            ensure!(
                Instant::now() < deadline,
                "program {} is still attached to interface {} after {} s",
                self.program,
                self.interface,
                LEAVE_TIMEOUT.as_secs()
            );
            sleep(LEAVE_POLL);
        }
        Ok(())
    }
}
