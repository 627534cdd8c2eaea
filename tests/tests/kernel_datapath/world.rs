//! A host of its own for each test.

use std::{
    collections::BTreeMap,
    fs,
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::links::{FdLink, PinnedLink},
};
use lb_common::{
    backend::BackendId,
    clock::Ticks,
    flow::{Control, Owner, Record4, State, WAYS},
    limits::Room,
    net::Protocol,
    service::{Filter, Mode, Reject},
    settings::Settings,
};
use lb_userspace::{
    datapath::{
        self, Opened,
        layout::MapLayout,
        shapes::{self, pin_name},
    },
    spec::{self, Api, AttachMode, Limits, Scheduler, Spec},
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::lab::{self, Namespace};

use crate::contents::literal;

/// Of every data plane here.
pub const ROOM: Room = Room { services: 300, backends: 900, slots: 10_000 };

/// A namespace with two interfaces, and a place for pins.
pub struct World {
    pub namespace: Namespace,
    bpffs: tempfile::TempDir,
}

impl World {
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let bpffs = tempfile::tempdir()?;
        mount(Some("bpf"), bpffs.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("mount a bpffs")?;
        let namespace = Namespace::create(format!("xlb-maps-{}-{number}", process::id()))?;
        let world = Self { namespace, bpffs };
        world.namespace.ip(
            "link add front type veth peer name front-peer\nlink add back type veth peer name back-peer\n\
             link set front up\nlink set back up",
        )?;
        world.forward()?;
        Ok(world)
    }

    pub fn forward(&self) -> Result<()> {
        self.namespace.sysctl("net.ipv4.ip_forward", "1")?;
        self.namespace.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    pub fn inside(&self, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
        self.namespace.inside(work)
    }

    pub fn root(&self) -> &Path {
        self.bpffs.path()
    }

    pub fn pins(&self) -> PathBuf {
        self.root().join("pins")
    }

    /// Where a map is pinned.
    pub fn pin(&self, map: &str) -> PathBuf {
        self.pins().join(pin_name(map))
    }

    /// The id of each pinned map, by the map's name.
    pub fn map_ids(&self) -> Result<BTreeMap<String, u32>> {
        let id = |layout: &MapLayout| {
            let pin = self.pins().join(layout.pin_name());
            let info = MapInfo::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
            Ok((layout.name.clone(), info.id()))
        };
        shapes::layouts().iter().map(id).collect()
    }

    pub fn open(&self, interfaces: &[&str], mode: AttachMode) -> Result<Opened> {
        open(&Self::spec(interfaces, mode), &self.pins())
    }

    /// The same with another object.
    pub fn open_object(&self, object: &[u8], interfaces: &[&str], mode: AttachMode) -> Result<Opened> {
        Ok(datapath::open(datapath::judge(&Self::spec(interfaces, mode), &self.pins())?, object)?)
    }

    /// A service and these interfaces.
    pub fn spec(interfaces: &[&str], mode: AttachMode) -> Spec {
        Spec {
            interfaces: interfaces
                .iter()
                .map(|name| spec::Interface { name: (*name).to_owned(), mode })
                .collect(),
            api: Api { socket: PathBuf::new() },
            metrics: None,
            limits: Limits {
                flows: 4096,
                flows_ipv6: 1024,
                half_open_flows: 256,
                services: ROOM.services,
                backends: ROOM.backends,
                slots: ROOM.slots,
            },
            hash: Default::default(),
            announce: None,
            group: None,
            cluster: None,
            programs_at_once: 8,
            services: vec![
                spec::Service {
                    name: "web".to_owned(),
                    listen: vec![literal("192.0.2.10:80"), literal("[2001:db8::10]:80")],
                    protocol: Protocol::Tcp,
                    mode: Mode::Nat,
                    sources: Vec::new(),
                    peer_sources: Vec::new(),
                    scheduler: Scheduler::RoundRobin,
                    availability: Default::default(),
                    reject: Reject::Reset,
                    role: Default::default(),
                    share_flows: Default::default(),
                    health: None,
                    backends: Vec::new(),
                }
                .into(),
            ],
        }
    }

    pub fn index(&self, interface: &str) -> Result<u32> {
        Ok(nix::net::if_::if_nametoindex(interface)?)
    }

    /// The program of an interface, as `ip` shows it.
    pub fn program(&self, interface: &str) -> Result<Option<u64>> {
        Ok(self.namespace.programs()?.remove(interface))
    }

    pub fn link_id(&self, interface: &str) -> Result<u32> {
        self.link_id_in(&self.pins(), interface)
    }

    pub fn link_id_in(&self, pins: &Path, interface: &str) -> Result<u32> {
        let path = pins.join(format!("link_{}", self.index(interface)?));
        Ok(FdLink::from(PinnedLink::from_pin(path)?).info()?.id())
    }

    /// What the kernel accounts for a pinned map (`memlock` in fdinfo).
    pub fn accounted_bytes(&self, map: &str) -> Result<u64> {
        let map = MapData::from_pin(self.pin(map))?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
        let memlock = info.lines().find_map(|line| line.strip_prefix("memlock:"));
        Ok(memlock.context("a map without memlock")?.trim().parse()?)
    }

    /// Puts an established flow of a backend into the first way of an IPv4 bucket. What else it is stays zero.
    pub fn put_flow(&self, bucket: u32, backend: BackendId) -> Result<()> {
        let mut bytes = [0_u8; size_of::<Record4>() * WAYS];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let owner = Owner::new(backend, Mode::FullNat, Protocol::Tcp as u8);
        put(offset_of!(Record4, control), &Control::new(1, State::ESTABLISHED, 0).0.to_ne_bytes());
        put(offset_of!(Record4, owner), &owner.0.to_ne_bytes());
        put(offset_of!(Record4, last_seen), &Ticks::from_seconds(uptime()?.as_secs()).0.to_ne_bytes());
        let map = MapData::from_pin(self.pin("FLOWS4"))?;
        Ok(Array::<_, [u8; _]>::try_from(Map::Array(map))?.set(bucket, bytes, 0)?)
    }

    /// The program's settings.
    pub fn settings(&self) -> Result<Settings> {
        let map = MapData::from_pin(self.pin("SETTINGS"))?;
        Ok(Array::<_, Settings>::try_from(Map::Array(map))?.get(&0, 0)?)
    }

    /// The bytes of the prefilter.
    pub fn filter(&self) -> Result<Vec<u8>> {
        let map = MapData::from_pin(self.pin("FILTER"))?;
        Ok(Array::<_, Filter>::try_from(Map::Array(map))?.get(&0, 0)?.byte.to_vec())
    }
}

/// Opens the data plane of a directory of pins.
pub fn open(spec: &Spec, pins: &Path) -> Result<Opened> {
    Ok(datapath::open(datapath::judge(spec, pins)?, &object()?)?)
}

impl Drop for World {
    fn drop(&mut self) {
        let deleted = process::Command::new("ip").args(["netns", "del", self.namespace.name()]).status();
        let unmounted = umount2(self.bpffs.path(), MntFlags::MNT_DETACH);
        if deleted.is_err() || unmounted.is_err() {
            eprintln!("left behind: {} and {}", self.namespace, self.bpffs.path().display());
        }
    }
}

/// At least the program's clock: a time slightly ahead of it counts as now.
fn uptime() -> Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split(' ').next().context("/proc/uptime is empty")?;
    Ok(Duration::from_secs_f64(seconds.parse()?))
}

/// The product's object.
pub fn object() -> Result<Vec<u8>> {
    object_named("lb")
}

pub fn object_named(name: &str) -> Result<Vec<u8>> {
    let directory = std::env::var_os("XLB_BPF_DIR")
        .map_or_else(|| lab::workspace().join("target/bpf/bpfel-unknown-none/bpf"), PathBuf::from);
    let path = directory.join(name);
    let object = fs::read(&path).with_context(|| format!("read {}: cargo xtask build", path.display()))?;
    ensure!(!object.is_empty(), "{} is empty", path.display());
    Ok(object)
}
