//! The exit codes of commands.

/// The number is the exit code.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The operation failed.
    Failed = 1,
    /// The command line, or the request made from it, is invalid.
    Usage = 2,
    /// There is no service or backend with this name.
    NotFound = 3,
    /// No daemon answers on the socket, or not in time.
    Unreachable = 4,
    /// A conflict: a name in use, a daemon that is running already.
    Conflict = 5,
    /// The file is missing or invalid.
    InvalidConfiguration = 6,
    /// `EX_CONFIG` of sysexits.h; systemd's `RestartPreventExitStatus=` names it.
    HostUnfit = 78,
}

impl Exit {
    /// In numeric order, as listed by `xlb --help`.
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

    /// The exit code of the process.
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
