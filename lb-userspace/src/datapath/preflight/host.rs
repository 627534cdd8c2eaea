//! Facts about the host, read from the kernel.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use ipnet::IpNet;
use nix::{
    ifaddrs::getifaddrs,
    sys::{
        socket::SockaddrStorage,
        statfs::{BPF_FS_MAGIC, statfs},
        utsname::uname,
    },
    unistd::{SysconfVar, sysconf},
};

use super::{links, links::Link, lro};
use crate::{interface_address::InterfaceAddress, interface_settings::InterfaceSettings};

/// What preflight checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Major and minor version.
    pub kernel: (u32, u32),
    /// The effective set.
    pub capabilities: u64,
    /// The nearest existing parent of the pin directory, and whether it can hold pins.
    pub pins_mount: PathBuf,
    pub pins_on_bpffs: bool,
    pub available_bytes: u64,
    /// Possible CPUs: per-CPU maps have a value for each.
    pub cpus: u32,
    pub page_size: u32,
    /// `net.ipv4.ip_local_port_range`
    pub local_ports: (u16, u16),
    pub links: Vec<Link>,
}

impl Host {
    /// Reads everything. `root` is the pin directory.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let pins_mount = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_path_buf();
        let links = links::dump().context("cannot list the interfaces by netlink")?;
        Ok(Self {
            kernel: kernel()?,
            capabilities: capabilities()?,
            pins_on_bpffs: is_bpffs(&pins_mount)?,
            pins_mount,
            available_bytes: available_bytes()?,
            cpus: cpus()?,
            page_size: page_size(),
            local_ports: local_ports()?,
            links: links.into_iter().map(with_settings).collect::<anyhow::Result<_>>()?,
        })
    }

    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The names of usable interfaces.
    pub fn link_names(&self) -> Vec<&str> {
        self.links.iter().map(|link| link.name.as_str()).filter(|name| *name != "lo").collect()
    }
}

fn is_bpffs(path: &Path) -> anyhow::Result<bool> {
    let found =
        statfs(path).with_context(|| format!("cannot read the file system type of {}", path.display()))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}

fn kernel() -> anyhow::Result<(u32, u32)> {
    let names = uname().context("cannot read the kernel version")?;
    version(names.release())
        .ok_or_else(|| anyhow!("the kernel's version `{}` is not a number", names.release().display()))
}

fn version(release: &OsStr) -> Option<(u32, u32)> {
    let mut parts = release.to_str()?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn capabilities() -> anyhow::Result<u64> {
    let status = read("/proc/thread-self/status")?;
    let set = field(&status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    set.ok_or_else(|| anyhow!("/proc/thread-self/status has no CapEff"))
}

fn available_bytes() -> anyhow::Result<u64> {
    let meminfo = read("/proc/meminfo")?;
    let kib = field(&meminfo, "MemAvailable:").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| anyhow!("/proc/meminfo has no MemAvailable"))? << 10)
}

/// The number of possible CPUs: the last number of a list such as `0-3,8-11`, plus one.
pub fn cpus() -> anyhow::Result<u32> {
    let path = "/sys/devices/system/cpu/possible";
    let list = read(path)?;
    let last = list.trim().rsplit([',', '-']).next().and_then(|number| number.parse::<u32>().ok());
    Ok(last.ok_or_else(|| anyhow!("{path} lists no CPU"))? + 1)
}

fn page_size() -> u32 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u32::try_from(size).ok()).unwrap_or(4096)
}

/// The ephemeral port range of this host.
pub fn local_ports() -> anyhow::Result<(u16, u16)> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = read(path)?;
    let ports: Vec<u16> = text.split_whitespace().filter_map(|port| port.parse().ok()).collect();
    match ports[..] {
        [first, last] => Ok((first, last)),
        _ => Err(anyhow!("{path} holds `{}`, which is not two ports", text.trim())),
    }
}

/// The addresses of this host's interfaces.
pub fn addresses() -> anyhow::Result<BTreeSet<IpAddr>> {
    let interfaces = getifaddrs().context("cannot list the addresses of this host")?;
    Ok(interfaces.filter_map(|interface| address(&interface.address?)).collect())
}

/// The addresses of this host with their prefixes, by interface.
pub fn networks() -> anyhow::Result<Vec<InterfaceAddress>> {
    let interfaces = getifaddrs().context("cannot list the addresses of this host")?;
    let network = |it: nix::ifaddrs::InterfaceAddress| {
        let (address, mask) = (address(&it.address?)?, address(&it.netmask?)?);
        let net = IpNet::with_netmask(address, mask).ok()?;
        Some(InterfaceAddress { interface: it.interface_name, net })
    };
    Ok(interfaces.filter_map(network).collect())
}

fn address(socket: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = socket.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    v4.or_else(|| socket.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
}

fn with_settings(link: Link) -> anyhow::Result<Link> {
    let lro =
        lro::is_on(&link.name).with_context(|| format!("cannot read the LRO setting of {}", link.name))?;
    let forwarding_v4 = forwarding("ipv4", &link.name)?;
    let forwarding_v6 = forwarding("ipv6", &link.name)?;
    Ok(Link { lro, forwarding_v4, forwarding_v6, ..link })
}

/// What the host does about ARP, and about packets that come by an unexpected way. `None`: there is no such interface.
pub fn settings(interface: &str) -> anyhow::Result<Option<InterfaceSettings>> {
    let of = |interface: &str, name: &str| -> anyhow::Result<Option<u8>> {
        let Some(text) = configured("ipv4", interface, name)? else { return Ok(None) };
        let number = text.parse().with_context(|| format!("{name} of {interface} is `{text}`, no number"))?;
        Ok(Some(number))
    };
    // IN_DEV_MAXCONF in the kernel's include/linux/inetdevice.h
    let larger = |name: &str| Ok::<_, anyhow::Error>(of(interface, name)?.max(of("all", name)?));
    if of(interface, "rp_filter")?.is_none() {
        return Ok(None);
    }
    Ok(Some(InterfaceSettings {
        interface: interface.to_owned(),
        arp_ignore: larger("arp_ignore")?.unwrap_or_default(),
        arp_announce: larger("arp_announce")?.unwrap_or_default(),
        rp_filter: larger("rp_filter")?.unwrap_or_default(),
    }))
}

/// `None`: the interface does not have this family.
fn forwarding(family: &str, interface: &str) -> anyhow::Result<Option<bool>> {
    Ok(configured(family, interface, "forwarding")?.map(|text| text != "0"))
}

/// A setting of an interface, or of `all`. `None`: there is no such interface, or it does not have this family.
fn configured(family: &str, interface: &str, name: &str) -> anyhow::Result<Option<String>> {
    let path = format!("/proc/sys/net/{family}/conf/{interface}/{name}");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_of_distributions_are_parsed() {
        for (release, expected) in [
            ("6.1.0-18-cloud-amd64", Some((6, 1))),
            ("6.18.44", Some((6, 18))),
            ("5.10", Some((5, 10))),
            ("6.12+deb13", Some((6, 12))),
            ("linux", None),
        ] {
            assert_eq!(version(OsStr::new(release)), expected, "{release}");
        }
    }

    #[test]
    fn the_facts_of_this_host_can_be_read() {
        let host = Host::read(Path::new("/nonexistent/bpf/xlb")).unwrap();

        assert_eq!(host.pins_mount, Path::new("/"));
        assert!(!host.pins_on_bpffs);
        assert!(host.cpus > 0 && host.available_bytes > 0, "{host:?}");
        assert!(host.link("lo").is_some_and(|link| link.index == 1 && link.mac.is_none()), "{host:?}");
        assert!(settings("lo").unwrap().is_some_and(|it| it.interface == "lo" && it.rp_filter <= 2));
        assert_eq!(settings("nonexistent").unwrap(), None);
    }
}
