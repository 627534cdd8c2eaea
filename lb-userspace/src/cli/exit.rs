//! How a command ends: the one table of exit codes.

/// The number is the exit code.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Unreachable = 4,
    Conflict = 5,
    InvalidConfiguration = 6,
    /// `EX_CONFIG` of sysexits.h; systemd's `RestartPreventExitStatus=` names it.
    HostUnfit = 78,
}

impl Exit {
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

    pub const fn code(self) -> u8 {
        self as u8
    }

    pub const fn about(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not found",
            Self::Unreachable => "daemon not reachable",
            Self::Conflict => "conflict",
            Self::InvalidConfiguration => "invalid configuration",
            Self::HostUnfit => "the host cannot run it",
        }
    }
}
