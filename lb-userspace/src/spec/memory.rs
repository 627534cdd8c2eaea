//! What a spec costs and allows: the memory of all maps, and how many flows the source ports suffice for.
//!
//! The kernel's own accounting (`map_mem_usage`, shown as `memlock` by bpftool) is reckoned here beforehand. Map by
//! map it was compared with Linux 6.18; the tests have the figures.

use std::fmt;

use lb_common::{
    backend, counters,
    flow::{HintLine, Record4, Record6, Shape, WAYS},
    hop,
    limits::{
        EVENT_RING_BYTES, IDLE_RING_BYTES, MAX_BACKENDS, MAX_INTERFACE_INDEX, MAX_POOLS, MAX_REASONS,
        MAX_SERVICE_KEYS, MAX_SERVICES, MAX_TABLES,
    },
    service::{self, Filter, Mode, ServiceKey, SlotTable},
    settings::{PortPool, Settings},
};

use super::{Limits, Spec, rules::Family};

const PAGE: u64 = 4096;
/// `struct bpf_array`.
const ARRAY: u64 = 312;
/// `struct bpf_htab` and its freelists.
const HASH: u64 = 912;
/// `struct htab_elem` before the key.
const HASH_ELEMENT: u64 = 48;
/// `struct bucket`.
const HASH_BUCKET: u64 = 16;
/// `struct bpf_dtab`.
const DEVICE_MAP: u64 = 344;
/// `struct bpf_ringbuf`: its own page, and one for each side's position.
const RING: u64 = 3 * PAGE + 392;

/// Bytes of all maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What the flow tables are made for.
    pub limits: Limits,
    /// CPUs that the kernel reckons with (`/sys/devices/system/cpu/possible`).
    pub cpus: u32,
    /// Records and hints of IPv4.
    pub flows: u64,
    /// Records and hints of IPv6.
    pub flows_ipv6: u64,
    /// Services, pools, tables, backends, interfaces, and what belongs to them.
    pub services: u64,
    /// Per-CPU counters.
    pub counters: u64,
}

impl Memory {
    /// Asks nobody: `cpus` is the host's to say.
    pub fn of(limits: Limits, cpus: u32) -> Self {
        let Limits { flows, flows_ipv6, half_open_flows } = limits;
        let shape4 = Shape::for_flows(flows, half_open_flows);
        let shape6 = Shape::for_flows(flows_ipv6, half_open_flows);
        Self {
            limits,
            cpus,
            flows: table(size_of::<Record4>(), shape4),
            flows_ipv6: table(size_of::<Record6>(), shape6),
            services: services(cpus),
            counters: counters(cpus),
        }
    }

    /// What the kernel will account for all maps.
    pub const fn total(&self) -> u64 {
        self.flows + self.flows_ipv6 + self.services + self.counters
    }
}

/// `FLOWS*` and `HINTS*`.
fn table(record: usize, shape: Shape) -> u64 {
    mapped_array(WAYS * record, shape.buckets) + mapped_array(size_of::<HintLine>(), shape.lines)
}

fn services(cpus: u32) -> u64 {
    array(size_of::<Settings>(), 1)
        + array(size_of::<Filter>(), 1)
        + hash(size_of::<ServiceKey>(), size_of::<service::Service>(), MAX_SERVICE_KEYS, cpus)
        + array(size_of::<service::Pool>(), MAX_POOLS)
        + array(size_of::<u64>(), MAX_POOLS) // TURNS
        + array(size_of::<SlotTable>(), MAX_TABLES)
        + array(size_of::<backend::Backend>(), MAX_BACKENDS)
        + array(size_of::<hop::Interface>(), MAX_INTERFACE_INDEX)
        + DEVICE_MAP + u64::from(MAX_INTERFACE_INDEX) * 8
        + array(size_of::<u64>(), 2) // HALF_OPEN
        + RING + EVENT_RING_BYTES as u64
        + RING + u64::from(IDLE_RING_BYTES) // AYA_LOGS
}

fn counters(cpus: u32) -> u64 {
    per_cpu_array(size_of::<counters::BackendCounters>(), MAX_BACKENDS, cpus)
        + per_cpu_array(size_of::<counters::ServiceCounters>(), MAX_SERVICES, cpus)
        + per_cpu_array(size_of::<counters::Tally>(), MAX_REASONS as u32, cpus)
        + per_cpu_array(size_of::<counters::ActionCounters>(), MAX_INTERFACE_INDEX, cpus)
}

/// `array_map_mem_usage`
const fn array(value: usize, entries: u32) -> u64 {
    ARRAY + entries as u64 * (value as u64).next_multiple_of(8)
}

/// The same with BPF_F_MMAPABLE: values begin and end at a page's.
const fn mapped_array(value: usize, entries: u32) -> u64 {
    PAGE + (entries as u64 * (value as u64).next_multiple_of(8)).next_multiple_of(PAGE)
}

/// The same with a value per CPU behind a pointer.
const fn per_cpu_array(value: usize, entries: u32, cpus: u32) -> u64 {
    ARRAY + entries as u64 * (8 + cpus as u64 * (value as u64).next_multiple_of(8))
}

/// `htab_map_mem_usage`, with all elements allocated beforehand and one more per CPU.
const fn hash(key: usize, value: usize, entries: u32, cpus: u32) -> u64 {
    let element = HASH_ELEMENT + (key as u64).next_multiple_of(8) + (value as u64).next_multiple_of(8);
    HASH + (entries as u64 + cpus as u64) * element + entries.next_power_of_two() as u64 * HASH_BUCKET
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sum = 0;
        // Rounded one by one, the parts would not add up to the whole: each is what the rounded sum grows by.
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

/// How many flows full-nat services can have at once before they run out of source ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePorts {
    /// Ports per source and backend.
    pub ports: u32,
    /// Only those in full-nat, once for each family that they listen on.
    pub services: Vec<ServicePorts>,
}

/// Of one service and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePorts {
    /// As in the file.
    pub service: String,
    /// Sources and backends of the other do not count.
    pub family: Family,
    /// Addresses of this host that backends see.
    pub sources: u32,
    /// Also those of weight 0 and backups: they may hold flows.
    pub backends: u32,
}

impl SourcePorts {
    /// `pool` is what the host leaves over.
    pub fn of(spec: &Spec, pool: PortPool) -> Self {
        let full_nat = spec.services.iter().filter(|service| service.mode == Mode::FullNat);
        let rows = full_nat.flat_map(|service| Family::ALL.map(|family| (service, family)));
        let row = |(service, family): (&super::Service, Family)| ServicePorts {
            service: service.name.clone(),
            family,
            sources: service.sources.iter().filter(|it| Family::of(**it) == family).count() as u32,
            backends: service.backends.iter().filter(|it| Family::of(it.address.ip()) == family).count()
                as u32,
        };
        let listening = rows.filter(|(service, family)| service.listens_on(*family));
        Self { ports: pool.size(), services: listening.map(row).collect() }
    }
}

impl ServicePorts {
    /// A flow takes one port of one source towards one backend.
    pub fn flows(&self, ports: u32) -> u64 {
        u64::from(ports) * u64::from(self.sources) * u64::from(self.backends)
    }
}

impl fmt::Display for SourcePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source ports: {} per source and backend", grouped(self.ports.into()))?;
        let widest = self.services.iter().map(|it| it.service.len()).max().unwrap_or(0);
        self.services.iter().try_for_each(|it| {
            let flows = grouped(it.flows(self.ports));
            let (sources, backends) = (counted(it.sources, "source"), counted(it.backends, "backend"));
            let ServicePorts { service, family, .. } = it;
            write!(f, "\n  {service:<widest$}  {family}  {sources} x {backends}: {flows} flows at once")
        })
    }
}

fn counted(count: u32, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn tenths_of_mebibytes(bytes: u64) -> u64 {
    const MEBIBYTE: u64 = 1 << 20;
    (bytes * 10 + MEBIBYTE / 2) / MEBIBYTE
}

fn mebibytes(tenths: u64) -> String {
    format!("{}.{} MiB", grouped(tenths / 10), tenths % 10)
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    String::from_utf8_lossy(&groups.join(&b',')).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_take_what_the_kernel_says_that_they_take() {
        // `bpftool map create ...; bpftool map show` on Linux 6.18 with two CPUs: memlock.
        assert_eq!(array(2312, 2048), 4_735_288);
        assert_eq!(array(4, 1024), 8504);
        assert_eq!(array(8, 2), 328);
        assert_eq!(mapped_array(64, 1024), 69_632);
        assert_eq!(mapped_array(1, 1), 8192);
        assert_eq!(per_cpu_array(40, 4096, 2), 360_760);
        assert_eq!(per_cpu_array(16, 18, 2), 1032);
        assert_eq!(hash(24, 8, 4096, 2), 394_288);
        assert_eq!(hash(24, 8, 1000, 2), 97_456);
        assert_eq!(DEVICE_MAP + 4096 * 8, 33_112);
        assert_eq!(RING + 16_384, 29_064);
    }

    #[test]
    fn a_flow_takes_no_more_than_promised_all_told() {
        for flows in [65_536, 262_144, 1_000_000, 8_388_608] {
            let memory = Memory::of(Limits { flows, flows_ipv6: flows, half_open_flows: flows }, 2);

            assert!(memory.flows <= 300 * u64::from(flows) && memory.flows_ipv6 <= 400 * u64::from(flows));
        }
        let defaults = Memory::of(Limits::default(), 2);
        let ipv4 = defaults.total() - defaults.flows_ipv6;
        assert!(ipv4 <= 300 * u64::from(Limits::default().flows), "{defaults}");
    }

    #[test]
    fn memory_is_shown_by_purpose() {
        let shown = Memory::of(Limits::default(), 2).to_string();

        let expected = "\
maps: 64.0 MiB
  262,144 IPv4 flows              40.0 MiB  160 bytes per flow
  65,536 IPv6 flows               18.0 MiB  288 bytes per flow
  services and backends            5.3 MiB
  counters of 2 CPUs               0.7 MiB";
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_parts_that_are_shown_add_up_to_the_whole() {
        for flows in [1, 1000, 65_536, 262_144, 1_000_000, 8_388_608] {
            for cpus in [1, 2, 3, 64, 256] {
                let limits = Limits { flows, flows_ipv6: 65_536, half_open_flows: flows };
                let shown = Memory::of(limits, cpus).to_string();

                let tenths = |line: &str| -> u64 {
                    let number = line.split(" MiB").next().unwrap().split(' ').next_back().unwrap();
                    number.replace([',', '.'], "").parse().unwrap()
                };
                let parts: u64 = shown.lines().skip(1).map(tenths).sum();
                assert_eq!(tenths(shown.lines().next().unwrap()), parts, "{shown}");
            }
        }
    }

    #[test]
    fn source_ports_are_counted_by_service_and_family() {
        let text = "
            version = 1
            [[interface]]
            name = 'eth0'
            [[service]]
            name = 'web'
            listen = ['192.0.2.10:80', '[2001:db8::10]:80']
            source = ['10.0.0.1', '10.0.0.2', 'fd00::1']
            backend = [{ name = 'a', address = '10.0.0.11:80' }, { name = 'b', address = '[fd00::11]:80' },
                       { name = 'c', address = '10.0.0.13:80' }]
            [[service]]
            name = 'natted'
            mode = 'nat'
            listen = ['192.0.2.11:80']
            backend = [{ name = 'a', address = '10.0.0.11:80' }]";
        let spec = crate::spec::parse("test.toml", text).unwrap();

        let ports = SourcePorts::of(&spec, PortPool::around(32_768, 60_999));

        let expected = "\
source ports: 36,280 per source and backend
  web  IPv4  2 sources x 2 backends: 145,120 flows at once
  web  IPv6  1 source x 1 backend: 36,280 flows at once";
        assert_eq!(ports.to_string(), expected);
    }

    #[test]
    fn digits_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];

        assert!(cases.iter().all(|(number, shown)| grouped(*number) == *shown));
    }
}
