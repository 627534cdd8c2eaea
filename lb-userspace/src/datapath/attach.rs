//! Attaches the program to the interfaces, and keeps it there.
//!
//! A pinned link outlives the daemon, and its program can be replaced without losing a packet. So a live link of xlb
//! is kept and gets the new program. Interfaces without one are attached.

mod link;
mod links;
mod pinned;
mod refused;

use std::path::Path;

use anyhow::anyhow;
use aya::programs::{Xdp, links::FdLink};
use lb_common::hop::InterfaceIndex;
use log::error;

use self::{link::NotAttached, refused::RefusedBy};
pub use self::{
    links::Links,
    pinned::{Pinned, pinned},
    refused::Refused,
};
use super::{Attached, pins, preflight::links::Link};
use crate::spec::{AttachMode, LinkMode};

/// An interface to attach to.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    pub link: &'a Link,
    pub mode: AttachMode,
    /// A live link of xlb on this interface.
    pub held: Option<&'a Pinned>,
}

/// The result of attaching.
#[derive(Debug, Default)]
pub struct Outcome {
    pub attached: Vec<Attached>,
    pub warnings: Vec<String>,
}

/// Attaches to all interfaces. On failure, those that were attached before stay so, in their modes.
pub fn attach(program: &mut Xdp, targets: &[Target<'_>], directory: &Path) -> Result<Outcome, Refused> {
    let native = Attempt::new(targets, first_choice(targets));
    let refused = match native.run(program, directory) {
        Ok(attached) => return Ok(Outcome { attached, warnings: Vec::new() }),
        Err(refused) => refused,
    };
    let is_auto = |it: &&Target<'_>| it.mode == AttachMode::Auto && it.link.name == refused.interface;
    if native.auto == LinkMode::Generic || !targets.iter().any(|it| is_auto(&it)) {
        return Err(refused.into());
    }
    let attached = Attempt::new(targets, LinkMode::Generic).run(program, directory)?;
    let cause = refused.error;
    let warning = format!(
        "{} does not support native mode ({cause}): all interfaces use generic mode, which is slower; \
         set mode = \"generic\" to make this permanent without this warning",
        refused.interface
    );
    Ok(Outcome { attached, warnings: vec![warning] })
}

/// Native mode for `auto` interfaces, unless an earlier start found that one of them does not support it.
fn first_choice(targets: &[Target<'_>]) -> LinkMode {
    let mut held = targets.iter().filter(|it| it.mode == AttachMode::Auto).filter_map(Target::held_mode);
    if held.any(|mode| mode == LinkMode::Generic) { LinkMode::Generic } else { LinkMode::Native }
}

impl Target<'_> {
    fn held_mode(&self) -> Option<LinkMode> {
        self.held?;
        let xdp = self.link.xdp?;
        Some(if xdp.is_generic { LinkMode::Generic } else { LinkMode::Native })
    }

    /// Attaches in a different mode. If that is refused, the change is rolled back.
    fn change(&self, program: &mut Xdp, mode: LinkMode, directory: &Path) -> Result<(), NotAttached> {
        if let Some(held) = self.held {
            held.remove()?;
        }
        let changed = link::attach(program, self.link.index, mode).and_then(|link| self.pin(link, directory));
        changed.inspect_err(|_| self.undo(program, directory))
    }

    /// Attaches the former program in its mode again. The error that is reported is that of the change.
    fn undo(&self, program: &mut Xdp, directory: &Path) {
        if let Err(error) = self.restore(program, directory) {
            error!("cannot attach the former program to {} again: {error:#}", self.link.name);
        }
    }

    /// Attaches the former program in its mode again; the new one if the former is not pinned.
    fn restore(&self, program: &mut Xdp, directory: &Path) -> Result<(), NotAttached> {
        let (Some(held), Some(mode)) = (self.held, self.held_mode()) else { return Ok(()) };
        let path = pins::link(directory, self.link.index);
        if path.exists() {
            Pinned::read(path, self.link.index)?.remove()?;
        }
        // Beside the link's pin, also in the directory of an older version.
        let mut former = link::pinned_program(&held.path.with_file_name(pins::PROGRAM), held.program)?;
        let link = link::attach(former.as_mut().unwrap_or(program), self.link.index, mode)?;
        link::pin(link, &held.path)?;
        Ok(())
    }

    /// Replaces the program of the existing link.
    fn replace(&self, program: &mut Xdp) -> Result<FdLink, NotAttached> {
        match self.held {
            Some(held) => Ok(link::replace(program, held)?),
            None => Err(anyhow!("xlb has no link to {}", self.link.name).into()),
        }
    }

    fn pin(&self, link: FdLink, directory: &Path) -> Result<(), NotAttached> {
        link::pin(link, &pins::link(directory, self.link.index))?;
        Ok(())
    }

    fn refuses(&self, error: NotAttached) -> RefusedBy {
        RefusedBy { interface: self.link.name.clone(), error }
    }
}

/// One attempt to attach to all interfaces, with one mode for those that are `auto`.
struct Attempt<'a> {
    targets: &'a [Target<'a>],
    auto: LinkMode,
}

impl<'a> Attempt<'a> {
    fn new(targets: &'a [Target<'a>], auto: LinkMode) -> Self {
        Self { targets, auto }
    }

    fn mode(&self, target: &Target<'_>) -> LinkMode {
        match target.mode {
            AttachMode::Native => LinkMode::Native,
            AttachMode::Generic => LinkMode::Generic,
            AttachMode::Auto => self.auto,
        }
    }

    fn run(&self, program: &mut Xdp, directory: &Path) -> Result<Vec<Attached>, RefusedBy> {
        let mut changed = Vec::new();
        self.change(program, directory, &mut changed)
            .inspect_err(|_| changed.iter().for_each(|it| it.undo(program, directory)))
    }

    /// New links come first: they can fail, and dropping them rolls them back. Then mode changes, which detach the
    /// interface for a moment; each is pinned at once. Replacing programs comes last: the kernel has no reason to
    /// refuse it. `changed`: those whose mode was changed.
    fn change<'t>(
        &'t self,
        program: &mut Xdp,
        directory: &Path,
        changed: &mut Vec<&'t Target<'a>>,
    ) -> Result<Vec<Attached>, RefusedBy> {
        let (held, bare): (Vec<_>, Vec<_>) = self.targets.iter().partition(|it| it.held.is_some());
        let (same, other): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|it| it.held_mode() == Some(self.mode(it)));
        let mut links = Vec::new();
        for it in bare {
            let link = link::attach(program, it.link.index, self.mode(it));
            links.push((it, link.map_err(|error| it.refuses(error))?));
        }
        for it in other {
            it.change(program, self.mode(it), directory).map_err(|error| it.refuses(error))?;
            changed.push(it);
        }
        for it in same {
            links.push((it, it.replace(program).map_err(|error| it.refuses(error))?));
        }
        for (it, link) in links {
            it.pin(link, directory).map_err(|error| it.refuses(error))?;
        }
        Ok(self.targets.iter().map(|it| attached(it.link, self.mode(it))).collect())
    }
}

fn attached(link: &Link, mode: LinkMode) -> Attached {
    Attached {
        name: link.name.clone(),
        index: InterfaceIndex(link.index),
        mode,
        mtu: link.mtu,
        mac: link.mac.unwrap_or_default(),
    }
}
