//! Attaches the program to the interfaces, and keeps it there.
//!
//! A link that is pinned outlives the daemon, and its program can be replaced without losing a packet. So a link that
//! is ours and alive is kept and given the new program; only what has no such link is attached anew.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::{XdpError, XdpLink, XdpLinkId},
};
use nix::errno::Errno;

use super::{
    Attached, pins,
    preflight::{
        Cause,
        links::{self, Link},
    },
};
use crate::spec::AttachMode;

/// How long a program may take to leave an interface: the kernel lets it go after an RCU grace period.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
const LEAVE_POLL: Duration = Duration::from_millis(5);

/// A pinned link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    pub path: PathBuf,
    /// By its name.
    pub interface: u32,
    /// The id of the program that it runs, or ran.
    pub program: u32,
}

/// The links that a directory has.
pub fn pinned(directory: &Path) -> anyhow::Result<Vec<Pinned>> {
    let read = |interface| {
        let path = pins::link(directory, interface);
        let info = PinnedLink::from_pin(&path).and_then(|link| FdLink::from(link).info());
        let program = info.with_context(|| format!("open {}", path.display()))?.program_id();
        Ok(Pinned { path, interface, program })
    };
    pins::links(directory)?.into_iter().map(read).collect()
}

impl Pinned {
    /// Does the interface run this link's program? Not where the device of this index is gone, or is another one.
    pub fn is_alive(&self, links: &[Link]) -> bool {
        links.iter().any(|link| {
            link.index == self.interface && link.xdp.is_some_and(|xdp| xdp.program == self.program)
        })
    }

    /// Detaches, and waits until the program has left.
    pub fn remove(&self) -> anyhow::Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("remove {}", self.path.display()))?;
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while self.is_alive(&links::dump().context("ask netlink for the interfaces")?) {
            ensure!(
                Instant::now() < deadline,
                "the program {} is still on the interface of index {} after {} s",
                self.program,
                self.interface,
                LEAVE_TIMEOUT.as_secs()
            );
            sleep(LEAVE_POLL);
        }
        Ok(())
    }
}

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

/// An interface does not take the program. What was attached before has been taken back.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Host(Cause),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Attaches everywhere, or nowhere that was not attached before.
pub fn attach(program: &mut Xdp, wanted: &[Wanted<'_>], directory: &Path) -> Result<Outcome, Refused> {
    let native = Attempt::new(wanted, first_choice(wanted));
    let refused = match native.run(program, directory) {
        Ok(attached) => return Ok(Outcome { attached, warnings: Vec::new() }),
        Err(refused) => refused,
    };
    let is_auto = |it: &&Wanted<'_>| it.mode == AttachMode::Auto && it.link.name == refused.interface;
    if native.auto == Mode::Generic || !wanted.iter().any(|it| is_auto(&it)) {
        return Err(refused.into());
    }
    let attached = Attempt::new(wanted, Mode::Generic).run(program, directory)?;
    let cause = refused.error;
    let warning = format!(
        "{} does not take the program in native mode ({cause}): generic mode on all",
        refused.interface
    );
    Ok(Outcome { attached, warnings: vec![warning] })
}

/// Native for those that are to choose, unless an earlier start has found that this does not do.
fn first_choice(wanted: &[Wanted<'_>]) -> Mode {
    let mut held =
        wanted.iter().filter(|it| it.mode == AttachMode::Auto).filter_map(Wanted::held_mode).peekable();
    if held.peek().is_some() && held.all(|mode| mode == Mode::Generic) { Mode::Generic } else { Mode::Native }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Native,
    Generic,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn of_xdp(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

impl Wanted<'_> {
    fn held_mode(&self) -> Option<Mode> {
        self.held?;
        let xdp = self.link.xdp?;
        Some(if xdp.is_generic { Mode::Generic } else { Mode::Native })
    }
}

/// One mode for each interface.
struct Attempt<'a> {
    wanted: &'a [Wanted<'a>],
    auto: Mode,
}

impl<'a> Attempt<'a> {
    fn new(wanted: &'a [Wanted<'a>], auto: Mode) -> Self {
        Self { wanted, auto }
    }

    fn mode(&self, wanted: &Wanted<'_>) -> Mode {
        match wanted.mode {
            AttachMode::Native => Mode::Native,
            AttachMode::Generic => Mode::Generic,
            AttachMode::Auto => self.auto,
        }
    }

    /// First those that may refuse; dropping their links undoes them. Then those that change their mode, which takes
    /// them off the network for a moment. What is replaced comes last, because it cannot fail.
    fn run(&self, program: &mut Xdp, directory: &Path) -> Result<Vec<Attached>, RefusedBy> {
        let mut links = Vec::new();
        for it in self.wanted.iter().filter(|it| it.held.is_none()) {
            links.push((it, attach_one(program, it.link, self.mode(it)).map_err(|error| it.refuses(error))?));
        }
        for it in self.wanted {
            let Some(held) = it.held.filter(|_| it.held_mode() != Some(self.mode(it))) else { continue };
            held.remove().map_err(|error| it.refuses(error.into()))?;
            links.push((it, attach_one(program, it.link, self.mode(it)).map_err(|error| it.refuses(error))?));
        }
        for it in self.wanted {
            let Some(held) = it.held.filter(|_| it.held_mode() == Some(self.mode(it))) else { continue };
            links.push((it, replace(program, held).map_err(|error| it.refuses(error.into()))?));
        }
        for (it, link) in links {
            pin(link, &pins::link(directory, it.link.index), it.held)
                .map_err(|error| it.refuses(error.into()))?;
        }
        Ok(self.wanted.iter().map(|it| attached(it.link, self.mode(it))).collect())
    }
}

fn attached(link: &Link, mode: Mode) -> Attached {
    Attached {
        name: link.name.clone(),
        index: link.index,
        mode: mode.name(),
        mtu: link.mtu,
        mac: link.mac.unwrap_or_default(),
    }
}

fn attach_one(program: &mut Xdp, link: &Link, mode: Mode) -> Result<FdLink, NotAttached> {
    let id = program.attach_to_if_index(link.index, mode.of_xdp())?;
    let link = take(program, id)?;
    // aya falls back to netlink where the kernel refuses a link with EINVAL; such a program ends with the daemon.
    FdLink::try_from(link).map_err(|_| NotAttached::Kernel(Errno::EINVAL))
}

/// Gives a link another program (BPF_LINK_UPDATE): no packet passes in between.
fn replace(program: &mut Xdp, held: &Pinned) -> anyhow::Result<FdLink> {
    let give = |program: &mut Xdp| -> Result<FdLink, NotAttached> {
        let link = FdLink::from(PinnedLink::from_pin(&held.path).map_err(anyhow::Error::new)?);
        let id = program.attach_to_link(XdpLink::try_from(link).map_err(anyhow::Error::new)?)?;
        Ok(FdLink::try_from(take(program, id)?).map_err(anyhow::Error::new)?)
    };
    give(program).with_context(|| format!("replace the program of {}", held.path.display()))
}

fn take(program: &mut Xdp, id: XdpLinkId) -> Result<XdpLink, NotAttached> {
    Ok(program.take_link(id)?)
}

/// Pins a link where it belongs, unless it lies there.
fn pin(link: FdLink, path: &Path, held: Option<&Pinned>) -> anyhow::Result<()> {
    if path.exists() {
        if held.is_some_and(|held| held.path == path) {
            return Ok(());
        }
        fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
    }
    link.pin(path).with_context(|| format!("pin {}", path.display()))?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum NotAttached {
    #[error("{0}")]
    Kernel(Errno),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl From<ProgramError> for NotAttached {
    fn from(error: ProgramError) -> Self {
        let errno = match &error {
            ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
            ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
            _ => None,
        };
        match errno {
            Some(errno) => Self::Kernel(Errno::from_raw(errno)),
            None => Self::Other(error.into()),
        }
    }
}

struct RefusedBy {
    interface: String,
    error: NotAttached,
}

impl Wanted<'_> {
    fn refuses(&self, error: NotAttached) -> RefusedBy {
        RefusedBy { interface: self.link.name.clone(), error }
    }
}

impl From<RefusedBy> for Refused {
    fn from(RefusedBy { interface, error }: RefusedBy) -> Self {
        let errno = match error {
            NotAttached::Kernel(errno) => errno,
            NotAttached::Other(error) => {
                return Self::Failed(error.context(format!("attach the XDP program to {interface}")));
            }
        };
        let remedy = match errno {
            Errno::EBUSY | Errno::EEXIST => {
                "another XDP program is on it: see `ip link show` and have its owner remove it"
            }
            Errno::EOPNOTSUPP => "its driver has no native mode: set mode = \"auto\" or \"generic\"",
            Errno::ERANGE => {
                "the MTU of it (or, for a veth, of its peer) is too large for native mode: lower it, or set mode = \"auto\""
            }
            Errno::EINVAL => {
                "its driver takes no program as it is set up: look into `dmesg` for its reason (MTU, LRO, queues), or set mode = \"generic\""
            }
            Errno::ENOMEM | Errno::ENOSPC => {
                "it has no queues left for XDP: use fewer by `ethtool -L`, or set mode = \"generic\""
            }
            _ => {
                let error = anyhow::Error::new(std::io::Error::from(errno));
                return Self::Failed(error.context(format!("attach the XDP program to {interface}")));
            }
        };
        Self::Host(Cause::new(
            format!("{interface} does not take the XDP program ({})", errno.desc()),
            remedy,
        ))
    }
}
