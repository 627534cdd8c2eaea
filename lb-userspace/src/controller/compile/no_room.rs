//! Why the intent does not fit into the maps.

use lb_common::limits::MAX_SOURCES;

/// See the [module](self). Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error(
        "too many services: the pinned maps hold {0} (`services` in [limits] when they were created): \
         raise it, run `xlb detach` (which ends all flows) and start xlb again"
    )]
    Services(u32),
    #[error(
        "too many listen endpoints and addresses in all services together: the pinned maps hold {0} (eight times \
         `services` in [limits] when they were created): raise it, run `xlb detach` (which ends all flows) and start \
         xlb again"
    )]
    ServiceKeys(u32),
    #[error(
        "too many backends: the pinned maps hold {0} (`backends` in [limits] when they were created): \
         raise it, run `xlb detach` (which ends all flows) and start xlb again"
    )]
    Backends(u32),
    #[error("service `{service}`: too many source addresses in one family: at most {MAX_SOURCES}")]
    PoolSources { service: String },
    #[error("too many pools: at most {0}")]
    Pools(u32),
    #[error(
        "too many slots, from service `{service}` on: the schedules need {needed}, and the pinned maps hold {room} (`slots` \
         in [limits] when they were created): raise it, run `xlb detach` (which ends all flows) and start xlb again"
    )]
    Schedules { service: String, needed: u64, room: u32 },
    #[error("no free space in the map SLOTS for another schedule: try again")]
    Slots,
    #[error("no free space in the map SOURCES for another set of source addresses: try again")]
    SourceSets,
}

impl NoRoom {
    /// Would it fit after a grace period?
    pub const fn ends_with_grace(&self) -> bool {
        matches!(self, Self::Pools(_) | Self::Slots | Self::SourceSets)
    }
}
