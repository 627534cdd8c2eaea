//! Limits how often the kernel is asked to resolve a neighbour. No I/O.
//!
//! XDP bypasses the kernel, so neighbours that only XDP uses seem idle to the kernel: it would neither resolve them nor
//! notice that they moved. So xlb has the kernel send the ARP requests or neighbour solicitations.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::resolve::{Neighbour, Place};

/// Limit of neighbour requests for clients per second. A client's packets determine what the program requests, and
/// each request is an entry in the kernel's table (1024 by default).
pub const CLIENTS_PER_SECOND: usize = 256;
/// Limit of requests for stale neighbours per second, not counting those of backends.
pub const REFRESHES_PER_SECOND: usize = 64;

/// Interval of requests for a neighbour that does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Interval of requests for a stale neighbour.
const REFRESH: Duration = Duration::from_secs(15);
const SECOND: Duration = Duration::from_secs(1);

/// Which neighbours were requested, and when.
#[derive(Debug)]
pub struct Limiter {
    asked: BTreeMap<Place, Instant>,
    clients: Budget,
    refreshes: Budget,
}

impl Limiter {
    pub fn new(now: Instant) -> Self {
        Self {
            asked: BTreeMap::new(),
            clients: Budget::new("clients", CLIENTS_PER_SECOND, now),
            refreshes: Budget::new("stale", REFRESHES_PER_SECOND, now),
        }
    }

    /// Whether to request the neighbour of a backend now. The number of backends is the only limit.
    pub fn backend(&mut self, place: Place, neighbour: Option<Neighbour>, now: Instant) -> bool {
        let Some(pause) = pause(neighbour) else { return false };
        self.is_due(place, pause, now) && self.remember(place, now)
    }

    /// Whether to request a neighbour because the program has a packet for it, or because it just failed.
    pub fn client(&mut self, place: Place, now: Instant) -> bool {
        is_unicast(place.1)
            && self.is_due(place, RETRY, now)
            && self.clients.admits(now)
            && self.remember(place, now)
    }

    /// Whether to request a stale neighbour that leads to no backend. It may lead to clients.
    pub fn stale(&mut self, place: Place, now: Instant) -> bool {
        self.is_due(place, REFRESH, now) && self.refreshes.admits(now) && self.remember(place, now)
    }

    /// Drops entries that no longer hold a request back.
    pub fn prune(&mut self, now: Instant) {
        self.asked.retain(|_, at| now < *at + REFRESH);
    }

    fn is_due(&self, place: Place, pause: Duration, now: Instant) -> bool {
        self.asked.get(&place).is_none_or(|at| now >= *at + pause)
    }

    fn remember(&mut self, place: Place, now: Instant) -> bool {
        self.asked.insert(place, now);
        true
    }
}

fn pause(neighbour: Option<Neighbour>) -> Option<Duration> {
    match neighbour {
        None | Some(Neighbour::Incomplete | Neighbour::Failed) => Some(RETRY),
        Some(Neighbour::Stale(_)) => Some(REFRESH),
        // A request would turn a permanent neighbour into an ordinary one (`__neigh_update`,
        // NEIGH_UPDATE_F_USE).
        Some(Neighbour::Fresh(_) | Neighbour::Fixed(_)) => None,
    }
}

fn is_unicast(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_multicast() || address.is_unspecified() || address.is_loopback() || is_broadcast)
}

/// The number of requests in a second.
#[derive(Debug)]
struct Budget {
    kind: &'static str,
    per_second: usize,
    since: Instant,
    spent: usize,
}

impl Budget {
    fn new(kind: &'static str, per_second: usize, now: Instant) -> Self {
        Self { kind, per_second, since: now, spent: 0 }
    }

    fn admits(&mut self, now: Instant) -> bool {
        if now >= self.since + SECOND {
            (self.since, self.spent) = (now, 0);
        }
        self.spent = self.spent.saturating_add(1);
        if self.spent == self.per_second + 1 {
            log::debug!(
                kind = self.kind, limit = self.per_second;
                "neighbour requests reached the limit per second; more are dropped until the next second"
            );
        }
        self.spent <= self.per_second
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use lb_common::{hop::InterfaceIndex, net::Mac};

    use super::*;

    const MAC: Mac = Mac([1; 3]);

    #[test]
    fn backends_are_requested_as_often_as_their_state_requires() {
        let cases = [
            (None, Some(1)),
            (Some(Neighbour::Incomplete), Some(1)),
            (Some(Neighbour::Failed), Some(1)),
            (Some(Neighbour::Stale(MAC)), Some(15)),
            (Some(Neighbour::Fresh(MAC)), None),
            (Some(Neighbour::Fixed(MAC)), None),
        ];
        for (neighbour, every) in cases {
            let start = Instant::now();
            let mut limiter = Limiter::new(start);

            let asked: Vec<u64> = (0..31)
                .filter(|second| limiter.backend(place(1), neighbour, start + SECOND * (*second as u32)))
                .collect();

            let expected: Vec<u64> = every.map(|every| (0..31).step_by(every).collect()).unwrap_or_default();
            assert_eq!(asked, expected, "{neighbour:?}");
        }
    }

    #[test]
    fn a_flood_of_clients_is_limited_and_does_not_affect_backends() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);

        for second in 0..3 {
            let now = start + SECOND * second;
            let flood =
                (0..10_000).filter(|number| limiter.client(place(10_000 * second + number), now)).count();

            assert_eq!(flood, CLIENTS_PER_SECOND);
            assert!(limiter.backend((InterfaceIndex(7), place(second).1), None, now));
        }
        limiter.prune(start + REFRESH + SECOND * 3);
        assert!(limiter.asked.is_empty());
    }

    #[test]
    fn the_same_client_is_requested_at_most_once_a_second() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);

        let asked =
            (0..300).filter(|n| limiter.client(place(1), start + Duration::from_millis(10) * *n)).count();

        assert_eq!(asked, 3);
    }

    #[test]
    fn addresses_that_cannot_be_neighbours_are_not_requested() {
        let mut limiter = Limiter::new(Instant::now());

        for address in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "::1", "ff02::1"] {
            assert!(
                !limiter.client((InterfaceIndex(2), address.parse().unwrap()), Instant::now()),
                "{address}"
            );
        }
    }

    #[test]
    fn many_stale_neighbours_are_requested_in_turn() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);

        let in_second = |limiter: &mut Limiter, second| {
            let now = start + SECOND * second;
            (0..200).filter(|number| limiter.stale(place(*number), now)).collect::<Vec<_>>()
        };

        assert_eq!(in_second(&mut limiter, 0), (0..64).collect::<Vec<_>>());
        assert_eq!(in_second(&mut limiter, 1), (64..128).collect::<Vec<_>>());
    }

    fn place(number: u32) -> Place {
        (InterfaceIndex(2), IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)))
    }
}
