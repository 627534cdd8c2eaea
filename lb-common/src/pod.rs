//! Tells aya that these types are plain bytes, for userspace.

use crate::{backend, counters, event, flow, hop, net, pool, service, settings};

macro_rules! pod {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C)` or `repr(transparent)` over integers, without padding (asserted beside the type).
            unsafe impl aya::Pod for $type {}
        )*
    };
}

pod!(
    backend::Backend,
    counters::ActionCounters,
    counters::BackendCounters,
    counters::BackendNumber,
    counters::ServiceCounters,
    counters::ServiceNumber,
    counters::Tally,
    event::NeighbourWanted,
    flow::Shape,
    hop::Hop,
    hop::Interface,
    net::Address,
    service::Filter,
    pool::Pool,
    pool::SourceSet,
    service::Service,
    service::ServiceKey,
    settings::Settings,
);
