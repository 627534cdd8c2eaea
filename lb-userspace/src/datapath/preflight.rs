//! Checks whether this host can run xlb. Changes nothing, and reports all problems at once with a remedy each.

pub mod host;
pub mod links;
mod lro;

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use lb_common::{limits::MAX_INTERFACE_INDEX, settings::PortPool};

use self::{host::Host, links::Link};
use crate::spec::{AttachMode, Interface, Spec};

/// The oldest supported kernel: that of Debian 12.
const KERNEL_FLOOR: (u32, u32) = (6, 1);
/// What shares a page with the frame in native mode: `XDP_PACKET_HEADROOM`, `struct skb_shared_info`, and the
/// Ethernet header, which the MTU does not include. (veth enforces this; other drivers have a lower limit.)
const PAGE_OVERHEAD: u32 = 256 + 320 + 14;

/// Capability numbers, `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Why the host cannot run xlb, and what to do. One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The problem, with the name of the object.
    pub what: String,
    /// A command, or a change to the file, that solves it.
    pub remedy: String,
    /// It may go away while the host boots: interfaces appear late, and their settings later.
    pub is_transient: bool,
}

impl Cause {
    /// Shown as `what: remedy`.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into(), is_transient: false }
    }

    /// The same as [`new`](Self::new), for problems that may go away while the host boots.
    pub fn transient(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { is_transient: true, ..Self::new(what, remedy) }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// Problems that prevent further checks: kernel, capabilities, and a place for pins.
pub fn check_host(host: &Host) -> Vec<Cause> {
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
            "run xlb as root, or with its systemd unit, which grants them",
        ));
    }
    if !host.pins_on_bpffs {
        let mount = host.pins_mount.display();
        causes.push(Cause::new(format!("{mount} is not a bpffs"), format!("mount -t bpf bpf {mount}")));
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

/// Problems with the interfaces. `ours`: the program of each of our pinned links, by interface index.
pub fn check_interfaces(spec: &Spec, host: &Host, ours: &BTreeMap<u32, u32>) -> Vec<Cause> {
    let families = Families::of(spec);
    let mut causes = Vec::new();
    for interface in &spec.interfaces {
        match host.link(&interface.name) {
            Some(link) => causes.extend(check_interface(interface, link, families, host.page_size, ours)),
            None => causes.push(Cause::transient(
                format!("there is no interface {}", interface.name),
                format!("name one of {} in the configuration", host.link_names().join(", ")),
            )),
        }
    }
    causes
}

/// The device of `[announce]`.
pub fn check_announce(spec: &Spec, host: &Host) -> Option<Cause> {
    let device = &spec.announce.as_ref()?.device;
    host.link(device).is_none().then(|| {
        Cause::transient(
            format!("there is no device {device} for [announce]"),
            format!("name lo, or make it: ip link add {device} type dummy"),
        )
    })
}

fn check_interface(
    interface: &Interface,
    link: &Link,
    families: Families,
    page_size: u32,
    ours: &BTreeMap<u32, u32>,
) -> Vec<Cause> {
    let name = &link.name;
    let mut causes = Vec::new();
    if link.mac.is_none() {
        causes.push(Cause::new(format!("{name} is not an Ethernet interface"), "name one that is"));
    }
    if link.index >= MAX_INTERFACE_INDEX {
        causes.push(Cause::new(
            format!(
                "{name} has the interface index {}, and xlb supports only those below {MAX_INTERFACE_INDEX}",
                link.index
            ),
            "reboot, or move the interface to a new network namespace",
        ));
    }
    if let Some(xdp) = link.xdp.filter(|xdp| ours.get(&link.index) != Some(&xdp.program)) {
        let id = xdp.program;
        causes.push(Cause::new(
            format!("{name} runs another XDP program, id {id}"),
            format!("remove it (`bpftool prog show id {id}` shows its owner)"),
        ));
    }
    // In generic mode the kernel turns LRO off.
    if link.lro && interface.mode != AttachMode::Generic {
        causes
            .push(Cause::transient(format!("{name} has LRO enabled"), format!("ethtool -K {name} lro off")));
    }
    let longest = native_mtu_max(page_size);
    if interface.mode == AttachMode::Native && link.mtu > longest {
        causes.push(Cause::transient(
            format!("{name} has an MTU of {}, too large for native mode", link.mtu),
            format!("ip link set dev {name} mtu {longest}, or mode = \"auto\""),
        ));
    }
    causes.extend(check_forwarding(link, families));
    causes
}

/// The longest packet whose frame fits into one page, as native mode requires.
pub fn native_mtu_max(page_size: u32) -> u32 {
    page_size.saturating_sub(PAGE_OVERHEAD)
}

/// `bpf_fib_lookup` returns no route if forwarding is off on the ingress interface. An interface whose MTU is too small
/// for a family has no settings for it.
fn check_forwarding(link: &Link, families: Families) -> Vec<Cause> {
    // sysctl(8): a dot in the name of an interface is written as a slash.
    let key = link.name.replace('.', "/");
    let check = |setting: Option<bool>, family: &str, all: &str, tree: &str, least_mtu: &str| match setting {
        Some(true) => None,
        Some(false) => Some(Cause::transient(
            format!("{} does not forward {family}", link.name),
            format!(
                "sysctl -w {all}=1, or for this interface alone sysctl -w {tree}.conf.{key}.forwarding=1"
            ),
        )),
        None => Some(Cause::transient(
            format!("{} has no {family}", link.name),
            format!("set its MTU to at least {least_mtu}, and enable {family} in the kernel if it is off"),
        )),
    };
    let v4 = || check(link.forwarding_v4, "IPv4", "net.ipv4.ip_forward", "net.ipv4", "68");
    let v6 = || check(link.forwarding_v6, "IPv6", "net.ipv6.conf.all.forwarding", "net.ipv6", "1280");
    families.v4.then(v4).flatten().into_iter().chain(families.v6.then(v6).flatten()).collect()
}

/// The address families of the listen addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    fn of(spec: &Spec) -> Self {
        let listens = || spec.services.iter().flat_map(|service| &service.listen);
        Self { v4: listens().any(SocketAddr::is_ipv4), v6: listens().any(SocketAddr::is_ipv6) }
    }
}

/// Maps are not swapped out, so their memory must be available. In a takeover they keep the sizes of the pinned maps.
pub fn check_memory(needed_bytes: u64, is_takeover: bool, host: &Host) -> Option<Cause> {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    (needed_bytes > host.available_bytes).then(|| {
        Cause::new(
            format!(
                "the maps need {} MiB of memory, and {} MiB are available",
                mib(needed_bytes),
                mib(host.available_bytes)
            ),
            if is_takeover {
                "add memory, or run `xlb detach` (which ends all flows) and lower `flows` and `flows_ipv6` \
                 in [limits]"
            } else {
                "lower `flows` and `flows_ipv6` in [limits], or add memory"
            },
        )
    })
}

/// Full-nat uses the source ports outside the host's ephemeral range. They are fixed when the maps are created.
pub fn check_ports(spec: &Spec, (first, last): (u16, u16)) -> Option<Cause> {
    (spec.needs_source_ports() && PortPool::around(first, last).size() == 0).then(|| {
        Cause::new(
            format!(
                "net.ipv4.ip_local_port_range is {first} to {last}, which leaves no source ports for full-nat"
            ),
            "narrow it, for instance sysctl -w net.ipv4.ip_local_port_range='32768 60999'",
        )
    })
}

/// Checksums and redirects of a veth depend on its peer, which is in another namespace.
pub fn veths(spec: &Spec, host: &Host) -> Option<String> {
    let links = spec.interfaces.iter().filter_map(|it| host.link(&it.name));
    let names: Vec<&str> = links.filter(|link| link.is_veth).map(|link| link.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "veth ({}): the peer interface must fill in checksums and accept redirected frames, which xlb \
             cannot check. In the peer's namespace: `ethtool -K PEER tx-checksum-ip-generic off gro on`. Frames that \
             leave by the interface that received them, such as answers to refused packets, also need an XDP program \
             on the peer",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests;
