//! How a command ends: the one table of exit codes.

/// The number is the exit code.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It was tried and did not work.
    Failed = 1,
    /// The command line makes no sense, or the request that it became.
    Usage = 2,
    /// There is no service or backend of this name.
    NotFound = 3,
    /// No daemon answers at the socket, or not in time.
    Unreachable = 4,
    /// It contradicts what is there: a name that is taken, a daemon that runs already.
    Conflict = 5,
    /// The file is missing or has mistakes.
    InvalidConfiguration = 6,
    /// `EX_CONFIG` of sysexits.h; systemd's `RestartPreventExitStatus=` names it.
    HostUnfit = 78,
}

impl Exit {
    /// In the order of their numbers, as `xlb --help` lists them.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Unreachable,
        Self::Conflict,
        Self::InvalidConfiguration,
        Self::HostUnfit,
    ];

    /// What the process returns to its parent.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// A few words for `xlb --help`.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not found",
            Self::Unreachable => "daemon not reachable",
            Self::Conflict => "conflict",
            Self::InvalidConfiguration => "invalid configuration",
            Self::HostUnfit => "the host cannot run xlb",
        }
    }
}
