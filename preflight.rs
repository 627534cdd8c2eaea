//! Can this host run it? Reads, judges, changes nothing: what is amiss is told all at once, each with its cure.

pub mod host;
pub mod links;
mod lro;

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use lb_common::{limits::MAX_INTERFACE_INDEX, settings::PortPool};

use self::{host::Host, links::Link};
use crate::spec::{AttachMode, Interface, Spec};

/// The oldest kernel that xlb is made for: Debian 12's. The newest thing in use (`bpf_loop`) is of 5.17.
const KERNEL_FLOOR: (u32, u32) = (6, 1);
/// What a frame shares its page with in native mode: `XDP_PACKET_HEADROOM`, `struct skb_shared_info`, and the
/// Ethernet header, which the MTU does not count.
const PAGE_OVERHEAD: u32 = 256 + 320 + 14;

/// Capability numbers, `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Why the host cannot run it, and what to do. One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub what: String,
    pub remedy: String,
}

impl Cause {
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// What keeps us from looking any further: kernel, rights, and a place for pins.
pub fn judge_host(host: &Host) -> Vec<Cause> {
    let mut causes = Vec::new();
    if host.kernel < KERNEL_FLOOR {
        let ((major, minor), (floor, point)) = (host.kernel, KERNEL_FLOOR);
        causes.push(Cause::new(
            format!("the kernel is Linux {major}.{minor}"),
            format!("boot Linux {floor}.{point} or newer"),
        ));
    }
    let missing = missing_capabilities(host.capabilities);
    if !missing.is_empty() {
        causes.push(Cause::new(
            format!("{} missing", missing.join(", ")),
            "run xlb as root or by its systemd unit, which grants them",
        ));
    }
    if !host.pins_on_bpffs {
        causes.push(Cause::new(
            format!("there is no bpffs at {}", host.pins_mount.display()),
            format!("mount -t bpf bpf {}", host.pins_mount.display()),
        ));
    }
    causes
}

fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective >> number & 1 == 1;
    let mut missing = Vec::new();
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    // CAP_SYS_ADMIN implies these two (capabilities(7)).
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(CAP_PERFMON) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_PERFMON");
    }
    missing
}

/// What is wrong with the interfaces. `ours`: the program that our pinned links run, by interface index.
pub fn judge_interfaces(spec: &Spec, host: &Host, ours: &BTreeMap<u32, u32>) -> Vec<Cause> {
    let families = Families::of(spec);
    let mut causes = Vec::new();
    for wanted in &spec.interfaces {
        match host.link(&wanted.name) {
            Some(link) => causes.extend(judge_interface(wanted, link, families, host.page_size, ours)),
            None => causes.push(Cause::new(
                format!("there is no interface {}", wanted.name),
                format!("name one of {} in the configuration", host.link_names().join(", ")),
            )),
        }
    }
    causes
}

fn judge_interface(
    wanted: &Interface,
    link: &Link,
    families: Families,
    page_size: u32,
    ours: &BTreeMap<u32, u32>,
) -> Vec<Cause> {
    let name = &link.name;
    let mut causes = Vec::new();
    if link.mac.is_none() {
        causes.push(Cause::new(format!("{name} is not Ethernet"), "name an Ethernet interface"));
    }
    if link.index >= MAX_INTERFACE_INDEX {
        causes.push(Cause::new(
            format!("{name} has the index {}, and those below {MAX_INTERFACE_INDEX} can be served", link.index),
            "reboot, or move it to a network namespace of its own",
        ));
    }
    if let Some(xdp) = link.xdp.filter(|xdp| ours.get(&link.index) != Some(&xdp.program)) {
        causes.push(Cause::new(
            format!("{name} runs another XDP program, id {}", xdp.program),
            format!(
                "see whose it is by `bpftool prog show id {}`, remove it by its owner's means or `ip link set dev {name} xdp off`",
                xdp.program
            ),
        ));
    }
    // In generic mode the kernel itself switches LRO off.
    if link.lro && wanted.mode != AttachMode::Generic {
        causes.push(Cause::new(
            format!("{name} merges packets on receipt (LRO)"),
            format!("ethtool -K {name} lro off"),
        ));
    }
    if wanted.mode == AttachMode::Native && link.mtu > native_mtu_max(page_size) {
        causes.push(Cause::new(
            format!("{name} has an MTU of {}, too large for native mode", link.mtu),
            format!(
                "ip link set dev {name} mtu {}, or mode = \"generic\" or \"auto\"",
                native_mtu_max(page_size)
            ),
        ));
    }
    causes.extend(judge_forwarding(link, families));
    causes
}

/// The longest frame that lies in one page, which native mode asks for.
pub fn native_mtu_max(page_size: u32) -> u32 {
    page_size.saturating_sub(PAGE_OVERHEAD)
}

/// `bpf_fib_lookup` answers nothing where the host does not forward.
fn judge_forwarding(link: &Link, families: Families) -> Vec<Cause> {
    let off = |family: &str, setting: Option<bool>, all: &str| match setting {
        Some(true) => None,
        Some(false) => Some(Cause::new(
            format!("{} does not forward {family}", link.name),
            format!(
                "sysctl -w {all}=1, or for this interface alone sysctl -w net.{}.conf.{}.forwarding=1",
                family.to_lowercase(),
                link.name.replace('.', "/"), // sysctl(8): a dot in a name is written as a slash
            ),
        )),
        None => Some(Cause::new(
            format!("{} has no {family}", link.name),
            format!(
                "sysctl -w net.{}.conf.{}.disable_ipv6=0",
                family.to_lowercase(),
                link.name.replace('.', "/")
            ),
        )),
    };
    let v4 = families.v4.then(|| off("IPv4", link.forwarding_v4, "net.ipv4.ip_forward")).flatten();
    let v6 = families.v6.then(|| off("IPv6", link.forwarding_v6, "net.ipv6.conf.all.forwarding")).flatten();
    v4.into_iter().chain(v6).collect()
}

/// The families that services listen in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    fn of(spec: &Spec) -> Self {
        let mut listens = spec.services.iter().flat_map(|service| &service.listen);
        Self {
            v4: listens.clone().any(SocketAddr::is_ipv4),
            v6: listens.any(SocketAddr::is_ipv6),
        }
    }
}

/// Maps are not swapped out: what they need must be there.
pub fn judge_memory(needed_bytes: u64, host: &Host) -> Option<Cause> {
    (needed_bytes > host.available_bytes).then(|| {
        Cause::new(
            format!(
                "the maps need {} MiB, and {} MiB are available",
                needed_bytes >> 20,
                host.available_bytes >> 20
            ),
            "lower `flows` and `flows_ipv6` in [limits], or add memory",
        )
    })
}

/// Odd, and still it runs.
pub fn warnings(spec: &Spec, host: &Host) -> Vec<String> {
    let links: Vec<&Link> = spec.interfaces.iter().filter_map(|it| host.link(&it.name)).collect();
    let mut warnings = Vec::new();
    if let (Some(small), Some(large)) =
        (links.iter().min_by_key(|link| link.mtu), links.iter().max_by_key(|link| link.mtu))
        && small.mtu != large.mtu
    {
        warnings.push(format!(
            "{} has an MTU of {} and {} of {}: what does not fit is dropped (reason too_big); make them equal by `ip link set`",
            large.name, large.mtu, small.name, small.mtu
        ));
    }
    for link in links.iter().filter(|link| link.is_veth) {
        warnings.push(format!(
            "{} is a veth: its peer must finish checksums and receive redirects; on the peer: ethtool -K PEER tx-checksum-ip-generic off gro on",
            link.name
        ));
    }
    let (first, last) = host.local_ports;
    if PortPool::around(first, last).size() == 0 {
        warnings.push(format!(
            "net.ipv4.ip_local_port_range is {first} {last} and leaves no source ports for full-nat: narrow it by sysctl"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
