//! Why the program cannot be attached to an interface, and what to do.

use nix::errno::Errno;

use super::link::NotAttached;
use crate::datapath::preflight::Cause;

/// The program cannot be attached. What had been attached before was rolled back.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Host(Cause),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// The interface, and the kernel's error.
#[derive(Debug)]
pub struct RefusedBy {
    pub interface: String,
    pub error: NotAttached,
}

impl From<RefusedBy> for Refused {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these errors have a known cause and remedy")]
    fn from(RefusedBy { interface, error }: RefusedBy) -> Self {
        let errno = match error {
            NotAttached::Kernel(errno) => errno,
            NotAttached::Other(error) => {
                return Self::Failed(error.context(format!("cannot attach the XDP program to {interface}")));
            }
        };
        let remedy = match errno {
            Errno::EBUSY | Errno::EEXIST => {
                "another XDP program is attached: `ip link show` shows it; remove it first"
            }
            Errno::EOPNOTSUPP => "its driver has no native mode: set mode = \"auto\" or \"generic\"",
            Errno::ERANGE => {
                "its MTU (or that of its peer, for a veth) is too large for native mode: lower it, or set \
                 mode = \"auto\""
            }
            Errno::EINVAL => {
                "its driver rejects the program with the current settings: see `dmesg` (MTU, LRO, queues), or set \
                 mode = \"generic\""
            }
            Errno::ENOMEM | Errno::ENOSPC => {
                "it has no queues left for XDP: reduce its number of channels (`ethtool -L`), or set mode = \
                 \"generic\""
            }
            _ => {
                let error = anyhow::Error::new(std::io::Error::from(errno));
                return Self::Failed(error.context(format!("cannot attach the XDP program to {interface}")));
            }
        };
        Self::Host(Cause::new(format!("{interface} rejects the XDP program ({})", errno.desc()), remedy))
    }
}
