//! Backends, as the program sees them.

use core::fmt;

use crate::{
    cell::Word,
    clock::{Age, Ticks},
    counters::{BackendNumber, ServiceNumber},
    hop::Hop,
    limits::BACKEND_IDS,
    net::{Address, Be16},
    pool::PoolNumber,
};

/// The id of a backend. Ids count up from 1, modulo 2^24.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u32);

impl BackendId {
    /// No backend.
    pub const NONE: Self = Self(0);
    /// The id of the first backend.
    pub const FIRST: Self = Self(1);

    /// The id that is assigned after this one.
    #[must_use]
    pub const fn following(self) -> Self {
        let id = (self.0 + 1) % BACKEND_IDS;
        if id == 0 { Self::FIRST } else { Self(id) }
    }

    /// The number of ids from this one to `next`, which is assigned next.
    pub const fn age(self, next: Self) -> u32 {
        next.0.wrapping_sub(self.0) % BACKEND_IDS
    }

    /// Its place in a `BACKENDS` array of this many places.
    pub const fn place(self, places: u32) -> u32 {
        self.0 % places
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

crate::plain!(BackendId = "u32");

/// A backend (a real server, in LVS terms). It is the element `id % places` of the `BACKENDS` array, and is used only by
/// flows that have its id.
///
/// An id is assigned only once. A backend that loses its flows (removed, in maint, or down if its service is UDP or has
/// `on_down = "reset"`) loses its id.
///
/// Packets read the first cache line, and only the controller writes to it. The second is read for new flows only: it has the
/// weight, the limit and the [`Load`], to which CPUs write, so that these writes do not slow down readers of the first.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Its id. [`BackendId::NONE`]: no backend.
    pub id: BackendId,
    /// The number of its counters.
    pub counters: BackendNumber,
    /// The number of its service's counters.
    pub service_counters: ServiceNumber,
    /// 0: it gets no new flows. What else the value says is for the daemon: see [`Self::ACCEPTS`].
    pub accepts: u32,
    /// The address that requests are sent to.
    pub address: Address,
    /// The port that requests are sent to.
    pub port: Be16,
    /// 1 if a client that it refuses gets another backend.
    pub retries: u16,
    /// How many backends of its pool may be ejected at the same time.
    pub most_ejected: u16,
    /// Zero.
    pub zero: u16,
    /// How to get there. Its address lies in one word of 64 bits, which the controller writes as a whole.
    pub hop: Hop,
    /// Its pool.
    pub pool: PoolNumber,
    /// Its effective weight in tenths, up to 10,000, for pickers that compare the loads of backends.
    pub weight: u32,
    /// It gets no new flow while it has this number of flows. 0: no limit.
    pub max_flows: u32,
    /// The words of its [`Load`]. Zero in the controller's own copies.
    pub load: [u64; 7],
}

impl Backend {
    /// It gets no new flows.
    pub const ACCEPTS_NONE: u32 = 0;
    /// It gets new flows.
    pub const ACCEPTS: u32 = 1;
    /// It gets new flows although it is down. The next daemon knows from this that it is.
    pub const ACCEPTS_IN_PANIC: u32 = 2;

    /// May a backend with this load have another flow?
    ///
    /// CPUs that create flows at the same time do not see each other's, so a backend may get as many flows beyond its
    /// limit as there are other CPUs.
    #[inline(always)]
    pub fn has_room(&self, load: &Load) -> bool {
        load.flows.load() < self.most_flows()
    }

    /// Its maximum number of flows: more than there can be if there is no limit.
    #[inline(always)]
    pub const fn most_flows(&self) -> u64 {
        self.max_flows.wrapping_sub(1) as u64 + 1
    }
}

crate::fields!(Backend {
    id,
    counters,
    service_counters,
    accepts,
    address,
    port,
    retries,
    most_ejected,
    zero,
    hop,
    pool,
    weight,
    max_flows,
    load
});

const _: () = assert!(core::mem::offset_of!(Backend, hop) % 8 == 0);

// The second cache line.
const _: () = assert!(core::mem::offset_of!(Backend, weight) == 64);
const _: () = assert!(size_of::<Backend>() == 128);

/// The load of a backend: what CPUs count. It lies in the second cache line of its [`Backend`].
#[repr(C)]
#[derive(Debug)]
pub struct Load {
    /// The number of records of its flows whose state [is counted](crate::flow::State::is_counted).
    pub flows: Word,
    /// The [`Ejection`](crate::ejection::Ejection) word.
    pub ejection: Word,
    /// When it last answered a new flow: `1 (32) | ticks (32)`. Zero: it has not answered yet.
    pub answered: Word,
    /// Zero.
    pub zero: [u64; 4],
}

impl Load {
    const HAS_ANSWERED: u64 = 1 << 32;

    /// The backend answers a new flow.
    #[inline(always)]
    pub fn answers_at(&self, now: Ticks) {
        self.answered.store(Self::HAS_ANSWERED | u64::from(now.0));
    }

    /// Has the backend answered a new flow within this time?
    #[inline(always)]
    pub fn has_answered_within(&self, time: Ticks, now: Ticks) -> bool {
        let answered = self.answered.load();
        answered != 0 && !Age::new(now, Ticks(answered as u32)).is_over(time)
    }
}

const _: () = assert!(size_of::<Load>() == size_of::<[u64; 7]>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_wrap_without_the_one_that_is_no_backend() {
        let last = BackendId(BACKEND_IDS - 1);

        assert_eq!(BackendId::FIRST.following(), BackendId(2));
        assert_eq!(last.following(), BackendId::FIRST);
        assert_eq!(last.age(BackendId(3)), 4);
    }
}
