//! Settings of the program: table sizes, hash keys, the port pool.

use crate::{backend::BackendId, clock::Ticks, flow::Shape};

/// The only element of the pinned `SETTINGS` map, which the next daemon takes over.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The number of slots that the maps were created for, see [`Room`](crate::limits::Room). 0: by a version without
    /// this limit.
    pub slots: u32,
    /// Incremented when routes or neighbours change: flows then look up their client's next hop again.
    pub hop_generation: u32,
    /// Secret keys of the flow hash.
    pub keys: [u64; 6],
    /// The IPv4 table.
    pub shape4: Shape,
    /// The IPv6 table.
    pub shape6: Shape,
    /// Source ports of full-nat flows, on all nodes that have the same sources.
    pub ports: PortPool,
    /// The number of services that the maps were created for.
    pub services: u32,
    /// The number of backends that the maps were created for.
    pub backends: u32,
    /// The id that the next backend gets.
    pub next_backend_id: BackendId,
    /// The time, if a test has stopped the clock.
    pub clock: Ticks,
    /// Secret keys of the pickers that hash. Equal on all nodes that share their configuration.
    pub hash_keys: [u64; 6],
    /// Are packets of no known flow answered? A [`Quiet`](crate::quiet::Quiet).
    pub quiet: u32,
    /// Zero.
    pub zero: u32,
    /// Those of [`Settings::ports`] that this node gives to new flows.
    pub own_ports: PortPool,
}

crate::fields!(Settings {
    slots,
    hop_generation,
    keys,
    shape4,
    shape6,
    ports,
    services,
    backends,
    next_backend_id,
    clock,
    hash_keys,
    quiet,
    zero,
    own_ports
});

impl Settings {
    /// The section of the object that the map is made from.
    pub const SECTION: &str = ".bss.SETTINGS";
}

const _: () = assert!(size_of::<Settings>() == 8 + 48 + 32 + 8 + 8 + 8 + 48 + 8 + 8);

/// Source ports: two ranges, below and above the host's ephemeral ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortPool {
    /// First port of the low range.
    pub low_first: u16,
    /// Ports in the low range.
    pub low_count: u16,
    /// First port of the high range.
    pub high_first: u16,
    /// Ports in the high range.
    pub high_count: u16,
}

crate::fields!(PortPool { low_first, low_count, high_first, high_count });

impl PortPool {
    /// All unprivileged ports except the host's `ip_local_port_range`.
    pub const fn around(ephemeral_first: u16, ephemeral_last: u16) -> Self {
        let low = ephemeral_first.saturating_sub(1024);
        let last = if ephemeral_last < 1023 { 1023 } else { ephemeral_last };
        Self {
            low_first: 1024,
            low_count: low,
            high_first: last.wrapping_add(1),
            high_count: u16::MAX - last,
        }
    }

    /// The ports of one of several nodes that have the same sources: no port belongs to two of them.
    #[must_use]
    pub const fn share(self, node: u32, nodes: u32) -> Self {
        let (first, end) = (self.size() * node / nodes, self.size() * (node + 1) / nodes);
        let low = self.low_count as u32;
        let (low_first, low_end) = (if first < low { first } else { low }, if end < low { end } else { low });
        let (high_first, high_end) = (first - low_first, end - low_end);
        Self {
            low_first: self.low_first + low_first as u16,
            low_count: (low_end - low_first) as u16,
            high_first: self.high_first.wrapping_add(high_first as u16),
            high_count: (high_end - high_first) as u16,
        }
    }

    /// Do these pools have a port in common?
    pub const fn overlaps(self, other: Self) -> bool {
        const fn meet(a: (u16, u16), b: (u16, u16)) -> bool {
            let (a_end, b_end) = (a.0 as u32 + a.1 as u32, b.0 as u32 + b.1 as u32);
            a.1 > 0 && b.1 > 0 && (a.0 as u32) < b_end && (b.0 as u32) < a_end
        }
        let [own_low, own_high] = [(self.low_first, self.low_count), (self.high_first, self.high_count)];
        let [low, high] = [(other.low_first, other.low_count), (other.high_first, other.high_count)];
        meet(own_low, low) || meet(own_low, high) || meet(own_high, low) || meet(own_high, high)
    }

    /// Number of ports.
    #[inline(always)]
    pub const fn size(self) -> u32 {
        self.low_count as u32 + self.high_count as u32
    }

    /// Is it one of them?
    #[inline(always)]
    pub const fn contains(self, port: u16) -> bool {
        port.wrapping_sub(self.low_first) < self.low_count
            || port.wrapping_sub(self.high_first) < self.high_count
    }

    /// The port at `index` below [`PortPool::size`].
    #[inline(always)]
    pub const fn port(self, index: u32) -> u16 {
        if index < self.low_count as u32 {
            self.low_first + index as u16
        } else {
            self.high_first.wrapping_add((index - self.low_count as u32) as u16)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_all_unprivileged_ports_but_the_hosts_own() {
        let pool = PortPool::around(32_768, 60_999);

        assert_eq!(pool.size(), 36_280);
        let ports: std::vec::Vec<u16> = (0..pool.size()).map(|index| pool.port(index)).collect();
        assert!(ports.iter().all(|port| *port >= 1024 && !(32_768..=60_999).contains(port)));
        assert!((0..=u16::MAX).all(|port| pool.contains(port) == ports.contains(&port)));
        assert_eq!((ports.first(), ports.last()), (Some(&1024), Some(&65_535)));
        assert_eq!(PortPool::around(1024, u16::MAX).size(), 0);
        let pool = PortPool::around(1, 500);
        assert_eq!((pool.size(), pool.port(0)), (64_512, 1024));
    }

    #[test]
    fn nodes_divide_the_ports() {
        let pool = PortPool::around(32_768, 60_999);
        for nodes in 1..=16 {
            let shares = (0..nodes).map(|node| pool.share(node, nodes));
            let ports: std::vec::Vec<u16> = shares
                .clone()
                .flat_map(|share| (0..share.size()).map(move |index| share.port(index)))
                .collect();

            assert!(ports.iter().copied().eq((0..pool.size()).map(|index| pool.port(index))), "{nodes}");
            let all: std::vec::Vec<PortPool> = shares.clone().collect();
            for (number, share) in all.iter().enumerate() {
                assert!(all.iter().enumerate().all(|(other, it)| share.overlaps(*it) == (other == number)));
            }
            let sizes: std::vec::Vec<u32> = shares.map(PortPool::size).collect();
            assert!(sizes.iter().all(|size| size.abs_diff(sizes[0]) <= 1), "{sizes:?}");
        }
    }

    #[test]
    fn shares_of_different_pools_overlap() {
        let [here, there] = [PortPool::around(32_768, 60_999), PortPool::around(20_000, 60_999)];

        assert!(here.share(1, 2).overlaps(there.share(0, 2)) || here.share(0, 2).overlaps(there.share(1, 2)));
        assert!(!PortPool::default().overlaps(here) && !here.overlaps(PortPool::default()));
    }

    extern crate std;
}
