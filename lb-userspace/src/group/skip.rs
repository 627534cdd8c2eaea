//! Why a flow of another node is not taken.

use lb_ebpf::table::adopt::Refusal;

use crate::named::named;

/// A reason, with its name in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// It is not a flow: an address or a number is wrong.
    Malformed,
    /// No service listens there.
    UnknownService,
    /// The service has no such backend, or the backend may have no flows (maint).
    UnknownBackend,
    /// The backend sees another source than it can with this service.
    OtherSource,
    /// This node has a newer flow with the same addresses and ports.
    Newer,
    /// It was closed or reset here.
    Closed,
    /// It has ended here since this node took over.
    Ended,
    /// The flow table is full.
    TableFull,
    /// CPUs were faster, several times.
    Contended,
}

named!(Skip {
    Malformed = "malformed",
    UnknownService = "unknown_service",
    UnknownBackend = "unknown_backend",
    OtherSource = "other_source",
    Newer = "newer_here",
    Closed = "closed_here",
    Ended = "ended_here",
    TableFull = "table_full",
    Contended = "contended",
});

impl Skip {
    /// Can it be otherwise once the round has ended, and with it flows that are in the way?
    pub const fn may_pass(self) -> bool {
        match self {
            Self::Newer | Self::TableFull | Self::Contended => true,
            Self::Malformed
            | Self::UnknownService
            | Self::UnknownBackend
            | Self::OtherSource
            | Self::Closed
            | Self::Ended => false,
        }
    }
}

impl From<Refusal> for Skip {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Newer => Self::Newer,
            Refusal::Closed => Self::Closed,
            Refusal::Ended => Self::Ended,
            Refusal::TableFull => Self::TableFull,
            Refusal::Contended => Self::Contended,
        }
    }
}
