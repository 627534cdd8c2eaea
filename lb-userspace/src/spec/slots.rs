//! How many slots the schedules of a service can need, whatever the state of its backends.
//!
//! The map of slots has room for the sum over all services, so that no change of health can lack room for another schedule.

use lb_common::pool::{Pool, SlotLine};

use super::{SLOW_START_STEPS, Scheduler, Service, ShareFlows, rules::Family};

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
        // Those that are computed have a schedule of their own.
        let schedules = if self.share_flows == ShareFlows::Exceptions { 2 } else { 1 };
        families.map(|family| schedules * u64::from(SlotLine::occupied(self.most_slots_in(family)))).sum()
    }

    fn most_slots_in(&self, family: Family) -> u32 {
        let backends = || self.backends.iter().filter(|it| Family::of(it.address.ip()) == family);
        let count = backends().count();
        // Weights are counted in tenths while backends start slowly.
        let parts = if self.availability.slow_start.is_zero() { 1 } else { SLOW_START_STEPS };
        let cycle = |weights: u32| (parts * weights).min(most_in_cycle(count));
        match self.scheduler {
            Scheduler::LeastConnections => count as u32,
            Scheduler::RoundRobin => cycle(count as u32),
            // An agent may give its backend any weight.
            Scheduler::WeightedRoundRobin | Scheduler::RandomTwo if self.has_agents() => most_in_cycle(count),
            Scheduler::WeightedRoundRobin | Scheduler::RandomTwo => {
                cycle(backends().map(|backend| backend.weight).sum())
            }
            Scheduler::SourceHash | Scheduler::Maglev => TABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::spec;

    #[test]
    fn only_services_with_slow_start_reserve_slots_for_tenths() {
        let (none, some) = (Duration::ZERO, Duration::from_secs(1));
        let cases = [
            (Scheduler::RoundRobin, none, 3, 3),
            (Scheduler::RoundRobin, some, 3, 30),
            (Scheduler::RoundRobin, none, 1_000, 1_000),
            (Scheduler::RoundRobin, some, 1_000, 4_096),
            (Scheduler::RoundRobin, some, 2_000, 8_000),
            (Scheduler::WeightedRoundRobin, none, 3, 300),
            (Scheduler::WeightedRoundRobin, some, 3, 3_000),
            (Scheduler::WeightedRoundRobin, none, 5, 500),
            (Scheduler::WeightedRoundRobin, some, 5, 4_096),
            (Scheduler::RandomTwo, some, 3, 3_000),
            (Scheduler::LeastConnections, some, 3, 3),
            (Scheduler::SourceHash, none, 3, TABLE),
            (Scheduler::Maglev, some, 3, TABLE),
        ];
        for (scheduler, slow_start, backends, expected) in cases {
            let mut service = of(backends);
            (service.scheduler, service.availability.slow_start) = (scheduler, slow_start);

            assert_eq!(
                service.most_slots_in(Family::V4),
                expected,
                "{scheduler:?}, {slow_start:?}, {backends}"
            );
        }
    }

    #[test]
    fn agents_may_give_any_weights() {
        let cases = [
            (Scheduler::RoundRobin, 3),
            (Scheduler::WeightedRoundRobin, 4_096),
            (Scheduler::RandomTwo, 4_096),
            (Scheduler::LeastConnections, 3),
            (Scheduler::Maglev, TABLE),
        ];
        for (scheduler, expected) in cases {
            let mut service = of(3);
            let probe = crate::probe::fixture::configured("type = 'agent'");
            service.health.as_mut().unwrap().probe = probe;
            service.scheduler = scheduler;

            assert_eq!(service.most_slots_in(Family::V4), expected, "{scheduler:?}");
        }
    }

    /// A service with this many backends.
    fn of(backends: u32) -> Service {
        let head = "version = 1\n[[interface]]\nname = 'eth0'\n\
                    [[service]]\nname = 'web'\nlisten = ['192.0.2.10:80']\nsource = ['10.0.0.1']\n";
        let backend =
            |n| format!("[[service.backend]]\nname = 'b{n}'\naddress = '10.1.{}.{}:80'\n", n >> 8, n & 255);
        let text = (0..backends).fold(head.to_owned(), |text, n| text + &backend(n));
        let spec = spec::parse("xlb.toml", &text).unwrap();
        Service::clone(&spec.services[0])
    }
}
