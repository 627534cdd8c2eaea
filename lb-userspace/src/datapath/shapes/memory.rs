//! The memory of all maps by purpose, as shown by `xlb check`.

use std::fmt;

use super::{Purpose, Rings, Sizes, all};
use crate::spec::{Limits, rules::Family, source_ports::grouped};

/// The size of all maps, without traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The number of flows.
    pub limits: Limits,
    /// Possible CPUs (`/sys/devices/system/cpu/possible`).
    pub cpus: u32,
    /// Records and reply index of IPv4.
    pub flows: u64,
    /// Records and reply index of IPv6.
    pub flows_ipv6: u64,
    /// Services, pools, slots, backends, interfaces, and the rest.
    pub services: u64,
    /// Per-CPU counters.
    pub counters: u64,
}

impl Memory {
    /// Nothing is read from the host: the caller passes the number of CPUs.
    pub fn of(limits: Limits, rings: Rings, cpus: u32) -> Self {
        let maps = all(&Sizes::of(&limits), rings);
        let sum = |purpose| {
            maps.iter().filter(|map| map.purpose == purpose).map(|map| map.memory_bytes(cpus)).sum()
        };
        Self {
            limits,
            cpus,
            flows: sum(Purpose::FlowsV4),
            flows_ipv6: sum(Purpose::FlowsV6),
            services: sum(Purpose::Services),
            counters: sum(Purpose::Counters),
        }
    }

    /// The memory that the kernel accounts for all maps.
    pub const fn total(&self) -> u64 {
        self.flows + self.flows_ipv6 + self.services + self.counters
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sum = 0;
        // Rounded parts would not add up to the rounded total. So each part is shown as the growth of the
        // rounded running total.
        let mut part = |bytes: u64| {
            let before = tenths_of_mebibytes(sum);
            sum += bytes;
            mebibytes(tenths_of_mebibytes(sum) - before)
        };

        writeln!(f, "maps: {}", mebibytes(tenths_of_mebibytes(self.total())))?;
        let families = [
            (Family::V4, self.limits.flows, self.flows),
            (Family::V6, self.limits.flows_ipv6, self.flows_ipv6),
        ];
        for (family, flows, bytes) in families {
            let (each, flows) = (bytes / u64::from(flows.max(1)), grouped(flows.into()));
            let flows = format!("{flows} {family} flows");
            writeln!(f, "  {flows:<28}{:>12}  {each} bytes per flow", part(bytes))?;
        }
        writeln!(f, "  {:<28}{:>12}", "services and backends", part(self.services))?;
        write!(f, "  {:<28}{:>12}", format!("counters of {} CPUs", self.cpus), part(self.counters))
    }
}

fn tenths_of_mebibytes(bytes: u64) -> u64 {
    const MEBIBYTE: u64 = 1 << 20;
    (bytes * 10 + MEBIBYTE / 2) / MEBIBYTE
}

fn mebibytes(tenths: u64) -> String {
    format!("{}.{} MiB", grouped(tenths / 10), tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::{super::memory_bytes, *};

    #[test]
    fn check_and_daemon_compute_the_same_sum() {
        for cpus in [1, 2, 256] {
            let limits = Limits { flows: 1_000_000, ..Limits::default() };

            let maps = all(&Sizes::of(&limits), Rings::IDLE);

            assert_eq!(Memory::of(limits, Rings::IDLE, cpus).total(), memory_bytes(&maps, cpus));
        }
    }

    #[test]
    fn memory_per_flow_and_by_default_stays_below_a_limit() {
        for flows in [65_536, 262_144, 1_000_000, 8_388_608] {
            let memory = Memory::of(
                Limits { flows, flows_ipv6: flows, half_open_flows: flows, ..Limits::default() },
                Rings::IDLE,
                2,
            );

            assert!(memory.flows <= 300 * u64::from(flows) && memory.flows_ipv6 <= 400 * u64::from(flows));
        }
        let defaults = Memory::of(Limits::default(), Rings::IDLE, 2);
        assert!(defaults.total() <= 100 << 20, "{defaults}");
    }

    #[test]
    fn memory_is_shown_by_purpose() {
        let shown = Memory::of(Limits::default(), Rings::IDLE, 2).to_string();

        let expected = "\
maps: 98.8 MiB
  262,144 IPv4 flows              40.0 MiB  160 bytes per flow
  65,536 IPv6 flows               18.0 MiB  288 bytes per flow
  services and backends           31.9 MiB
  counters of 2 CPUs               8.9 MiB";
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_parts_shown_add_up_to_the_total() {
        for flows in [1, 1000, 65_536, 262_144, 1_000_000, 8_388_608] {
            for cpus in [1, 2, 3, 64, 256] {
                let limits = Limits { flows, half_open_flows: flows, ..Limits::default() };
                let shown = Memory::of(limits, Rings::IDLE, cpus).to_string();

                let tenths = |line: &str| -> u64 {
                    let number = line.split(" MiB").next().unwrap().split(' ').next_back().unwrap();
                    number.replace([',', '.'], "").parse().unwrap()
                };
                let parts: u64 = shown.lines().skip(1).map(tenths).sum();
                assert_eq!(tenths(shown.lines().next().unwrap()), parts, "{shown}");
            }
        }
    }
}
