//! Attaches the program to the interfaces, and keeps it there.
//!
//! A link that is pinned outlives the daemon, and its program can be replaced without losing a packet. So a link that
//! is ours and alive is kept and given the new program; only what has no such link is attached anew.

mod link;
mod links;
mod pinned;
mod refused;

use std::path::Path;

use anyhow::anyhow;
use aya::programs::{Xdp, links::FdLink};

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
pub struct Wanted<'a> {
    pub link: &'a Link,
    pub mode: AttachMode,
    /// A link of ours that is alive on it.
    pub held: Option<&'a Pinned>,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub attached: Vec<Attached>,
    pub warnings: Vec<String>,
}

/// Attaches everywhere, or nowhere that was not attached before.
pub fn attach(program: &mut Xdp, wanted: &[Wanted<'_>], directory: &Path) -> Result<Outcome, Refused> {
    let native = Attempt::new(wanted, first_choice(wanted));
    let refused = match native.run(program, directory) {
        Ok(attached) => return Ok(Outcome { attached, warnings: Vec::new() }),
        Err(refused) => refused,
    };
    let is_auto = |it: &&Wanted<'_>| it.mode == AttachMode::Auto && it.link.name == refused.interface;
    if native.auto == LinkMode::Generic || !wanted.iter().any(|it| is_auto(&it)) {
        return Err(refused.into());
    }
    let attached = Attempt::new(wanted, LinkMode::Generic).run(program, directory)?;
    let cause = refused.error;
    let warning = format!(
        "{} does not support native mode ({cause}): all interfaces use generic mode, which is slower; \
         set mode = \"generic\" to choose it",
        refused.interface
    );
    Ok(Outcome { attached, warnings: vec![warning] })
}

/// Native for those that are to choose, unless an earlier start has found that this does not do.
fn first_choice(wanted: &[Wanted<'_>]) -> LinkMode {
    let mut held = wanted.iter().filter(|it| it.mode == AttachMode::Auto).filter_map(Wanted::held_mode);
    if held.any(|mode| mode == LinkMode::Generic) { LinkMode::Generic } else { LinkMode::Native }
}

impl Wanted<'_> {
    fn held_mode(&self) -> Option<LinkMode> {
        self.held?;
        let xdp = self.link.xdp?;
        Some(if xdp.is_generic { LinkMode::Generic } else { LinkMode::Native })
    }

    /// Attaches in another mode. If that is refused, the program goes back to where it was.
    fn change(&self, program: &mut Xdp, mode: LinkMode) -> Result<FdLink, NotAttached> {
        let (Some(held), Some(old)) = (self.held, self.held_mode()) else {
            return link::attach(program, self.link.index, mode);
        };
        held.remove()?;
        let refused = match link::attach(program, self.link.index, mode) {
            Ok(link) => return Ok(link),
            Err(refused) => refused,
        };
        link::pin(link::attach(program, self.link.index, old)?, &held.path)?;
        Err(refused)
    }

    /// Gives the link that is held another program.
    fn replace(&self, program: &mut Xdp) -> Result<FdLink, NotAttached> {
        match self.held {
            Some(held) => Ok(link::replace(program, held)?),
            None => Err(anyhow!("{} has no link of xlb", self.link.name).into()),
        }
    }

    fn refuses(&self, error: NotAttached) -> RefusedBy {
        RefusedBy { interface: self.link.name.clone(), error }
    }
}

/// One mode for each interface.
struct Attempt<'a> {
    wanted: &'a [Wanted<'a>],
    auto: LinkMode,
}

impl<'a> Attempt<'a> {
    fn new(wanted: &'a [Wanted<'a>], auto: LinkMode) -> Self {
        Self { wanted, auto }
    }

    fn mode(&self, wanted: &Wanted<'_>) -> LinkMode {
        match wanted.mode {
            AttachMode::Native => LinkMode::Native,
            AttachMode::Generic => LinkMode::Generic,
            AttachMode::Auto => self.auto,
        }
    }

    /// First those that may refuse; dropping their links undoes them. Then those that change their mode, which takes
    /// them off the network for a moment. What is replaced comes last, because it cannot fail.
    fn run(&self, program: &mut Xdp, directory: &Path) -> Result<Vec<Attached>, RefusedBy> {
        let (held, bare): (Vec<_>, Vec<_>) = self.wanted.iter().partition(|it| it.held.is_some());
        let (same, other): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|it| it.held_mode() == Some(self.mode(it)));
        let mut links = Vec::new();
        for it in bare {
            let link = link::attach(program, it.link.index, self.mode(it));
            links.push((it, link.map_err(|error| it.refuses(error))?));
        }
        for it in other {
            links.push((it, it.change(program, self.mode(it)).map_err(|error| it.refuses(error))?));
        }
        for it in same {
            links.push((it, it.replace(program).map_err(|error| it.refuses(error))?));
        }
        for (it, link) in links {
            let path = pins::link(directory, it.link.index);
            link::pin(link, &path).map_err(|error| it.refuses(error.into()))?;
        }
        Ok(self.wanted.iter().map(|it| attached(it.link, self.mode(it))).collect())
    }
}

fn attached(link: &Link, mode: LinkMode) -> Attached {
    Attached {
        name: link.name.clone(),
        index: link.index,
        mode,
        mtu: link.mtu,
        mac: link.mac.unwrap_or_default(),
    }
}
