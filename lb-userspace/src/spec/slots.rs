//! How many slots the schedules of a service can need, whatever the state of its backends.
//!
//! The map of slots has room for the sum over all services, so that no change of health can lack room for another schedule.

use lb_common::pool::{Pool, SlotLine};

use super::{Scheduler, Service, rules::Family};

/// The slots of a Maglev table. A prime, so that every step length leads through all of them. A hundred slots for each of
/// 655 backends: shares are exact to about 1 %.
pub const TABLE: u32 = 65_537;

/// A weighted cycle of fewer slots is never scaled, so sums of weights up to this are exact.
const EXACT: usize = 4096;

/// The most slots of a weighted cycle. Four for each backend, so that weights remain distinguishable in large pools.
pub fn most_in_cycle(backends: usize) -> u32 {
    EXACT.max(4 * backends).min(Pool::LENGTHS as usize - 1) as u32
}

impl Service {
    /// The most slots that its schedules can need, in all families. Each schedule occupies whole lines.
    pub fn most_slots(&self) -> u64 {
        let listens = |family| self.listen.iter().any(|listen| Family::of(listen.ip()) == family);
        let families = Family::ALL.into_iter().filter(|family| listens(*family));
        families.map(|family| u64::from(SlotLine::occupied(self.most_slots_in(family)))).sum()
    }

    fn most_slots_in(&self, family: Family) -> u32 {
        let backends = || self.backends.iter().filter(|it| Family::of(it.address.ip()) == family);
        let count = backends().count();
        match self.scheduler {
            Scheduler::RoundRobin | Scheduler::LeastConnections => count as u32,
            Scheduler::WeightedRoundRobin | Scheduler::RandomTwo => {
                let cycle: u32 = backends().map(|backend| backend.weight).sum();
                cycle.min(most_in_cycle(count))
            }
            Scheduler::SourceHash | Scheduler::Maglev => TABLE,
        }
    }
}
