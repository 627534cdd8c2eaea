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

    /// Attaches in another mode. If that is refused, the former program is attached in its mode again.
    fn change(&self, program: &mut Xdp, mode: LinkMode, directory: &Path) -> Result<(), NotAttached> {
        if let Some(held) = self.held {
            held.remove()?;
        }
        let changed = link::attach(program, self.link.index, mode).and_then(|link| self.pin(link, directory));
        changed.or_else(|refused| self.restore(program, directory).and(Err(refused)))
    }

    /// Attaches the former program in its mode again; the new one if the former is not pinned.
    fn restore(&self, program: &mut Xdp, directory: &Path) -> Result<(), NotAttached> {
        let (Some(held), Some(mode)) = (self.held, self.held_mode()) else { return Ok(()) };
        let path = pins::link(directory, self.link.index);
        if path.exists() {
            Pinned::read(path, self.link.index)?.remove()?;
        }
        let mut former = link::pinned_program(&directory.join(pins::PROGRAM), held.program);
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

/// One mode for each interface.
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

    /// New links first, because they can fail and dropping them undoes them. Then mode changes, which detach the
    /// interface for a moment; each is pinned at once, and if the next one fails, all are changed back. Replacing a
    /// program comes last, because it cannot fail.
    fn run(&self, program: &mut Xdp, directory: &Path) -> Result<Vec<Attached>, RefusedBy> {
        let (held, bare): (Vec<_>, Vec<_>) = self.targets.iter().partition(|it| it.held.is_some());
        let (same, other): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|it| it.held_mode() == Some(self.mode(it)));
        let mut links = Vec::new();
        for it in bare {
            let link = link::attach(program, it.link.index, self.mode(it));
            links.push((it, link.map_err(|error| it.refuses(error))?));
        }
        let mut changed: Vec<&Target<'_>> = Vec::new();
        for it in other {
            if let Err(error) = it.change(program, self.mode(it), directory) {
                // Each of them, also after one that cannot be changed back.
                let restore =
                    |it: &&Target<'_>| it.restore(program, directory).map_err(|error| it.refuses(error));
                let restored: Vec<_> = changed.iter().map(restore).collect();
                return Err(restored.into_iter().find_map(Result::err).unwrap_or_else(|| it.refuses(error)));
            }
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
