//! XDP links, by aya.

use std::path::Path;

use anyhow::Context;
use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::{XdpError, XdpLink, XdpLinkId},
};
use aya_obj::programs::XdpAttachType;
use nix::errno::Errno;

use super::pinned::Pinned;
use crate::{datapath::pins, spec::LinkMode};

/// Why attaching failed.
#[derive(Debug, thiserror::Error)]
pub enum NotAttached {
    #[error("{0}")]
    Kernel(Errno),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl From<ProgramError> for NotAttached {
    fn from(error: ProgramError) -> Self {
        let errno = if let ProgramError::SyscallError(error) = &error {
            error.io_error.raw_os_error()
        } else if let ProgramError::XdpError(XdpError::NetlinkError(error)) = &error {
            error.raw_os_error()
        } else {
            None
        };
        match errno {
            Some(errno) => Self::Kernel(Errno::from_raw(errno)),
            None => Self::Other(error.into()),
        }
    }
}

/// Attaches with a new link.
pub fn attach(program: &mut Xdp, interface: u32, mode: LinkMode) -> Result<FdLink, NotAttached> {
    let id = program.attach_to_if_index(interface, of_aya(mode))?;
    let link = take(program, id)?;
    // aya falls back to netlink if the kernel refuses a link with EINVAL. A program attached that way ends with
    // the daemon.
    FdLink::try_from(link).map_err(|_| NotAttached::Kernel(Errno::EINVAL))
}

/// Replaces the program of a link (BPF_LINK_UPDATE) without losing a packet.
pub fn replace(program: &mut Xdp, held: &Pinned) -> anyhow::Result<FdLink> {
    let give = |program: &mut Xdp| -> Result<FdLink, NotAttached> {
        let link = FdLink::from(PinnedLink::from_pin(&held.path).map_err(anyhow::Error::new)?);
        let id = program.attach_to_link(XdpLink::try_from(link).map_err(anyhow::Error::new)?)?;
        Ok(FdLink::try_from(take(program, id)?).map_err(anyhow::Error::new)?)
    };
    give(program).with_context(|| format!("cannot replace the program of {}", held.path.display()))
}

fn take(program: &mut Xdp, id: XdpLinkId) -> Result<XdpLink, NotAttached> {
    Ok(program.take_link(id)?)
}

/// Opens a pinned link.
pub fn open(path: &Path) -> anyhow::Result<FdLink> {
    let link = PinnedLink::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(link.into())
}

/// Pins a link in place of what is there: the same link, or a dead one. Returns its handle.
pub fn pin(link: FdLink, path: &Path) -> anyhow::Result<FdLink> {
    let unfinished = pins::unfinished(path);
    pins::remove_file(&unfinished)?;
    let link = link.pin(&unfinished).with_context(|| format!("cannot pin {}", unfinished.display()))?;
    pins::rename(&unfinished, path)?;
    Ok(link.into())
}

/// The program of a pin, if there is one with this id.
pub fn pinned_program(path: &Path, id: u32) -> anyhow::Result<Option<Xdp>> {
    if !path.exists() {
        return Ok(None);
    }
    let context = || format!("cannot open {}", path.display());
    let program = Xdp::from_pin(path, XdpAttachType::Interface).with_context(context)?;
    let is_meant = program.info().with_context(context)?.id() == id;
    Ok(is_meant.then_some(program))
}

fn of_aya(mode: LinkMode) -> XdpMode {
    match mode {
        LinkMode::Native => XdpMode::Driver,
        LinkMode::Generic => XdpMode::Skb,
    }
}
