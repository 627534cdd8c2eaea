//! The data plane's life on a real kernel: made, taken over, refused, removed.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use lb_common::{
    backend::Backend,
    hop::{Hop, Interface},
    limits::MAX_BACKENDS,
    net::{Be16, Mac, Protocol},
    service::{Filter, Mode, Service},
};
use lb_userspace::{
    datapath::{self, Attached, Datapath, Listen, Op, OpenError, Opened, ServiceValue, Snapshot, Table},
    spec::{self, Api, AttachMode, BackendName, Limits, Scheduler, Spec},
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::lab::{self, Namespace};

#[test]
fn what_is_put_into_the_maps_is_read_back_and_outlives_the_daemon() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front", "back"], AttachMode::Native)?;
        assert!(!opened.adopted);
        assert_eq!(opened.datapath.observe()?, Snapshot { next_backend_id: 1, ..Snapshot::default() });

        let (steps, want) = everything(&opened.attached);
        for step in &steps {
            opened.datapath.apply(step)?;
        }
        assert_eq!(opened.datapath.observe()?, want);

        drop(opened);
        let mut adopted = world.open(&["front", "back"], AttachMode::Native)?;
        assert!(adopted.adopted);
        assert_eq!(adopted.datapath.observe()?, want);
        Ok(())
    })
}

#[test]
fn what_is_deleted_is_gone_and_leaves_no_bits_in_the_filter() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        let (steps, want) = everything(&opened.attached);
        for step in &steps {
            opened.datapath.apply(step)?;
        }
        assert_ne!(world.filter()?, Filter::NOTHING);

        for step in removal(&want) {
            opened.datapath.apply(&step)?;
        }

        let left = Snapshot { next_backend_id: 9, hop_generation: 7, ..Snapshot::default() };
        assert_eq!(opened.datapath.observe()?, left);
        assert_eq!(world.filter()?, Filter::NOTHING);
        Ok(())
    })
}

#[test]
fn the_filter_has_the_bits_of_what_is_listened_on_and_served() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        for step in everything(&opened.attached).0 {
            opened.datapath.apply(&step)?;
        }

        let filter = world.filter()?;
        let bits = |address: &str| -> Result<u8> {
            let address: SocketAddr = address.parse()?;
            Ok(filter.byte[Filter::index(Filter::fold(address.ip().into()), Be16::new(address.port()))])
        };
        assert_eq!(bits("192.0.2.10:80")?, Filter::SERVICE);
        assert_eq!(bits("[2001:db8::10]:80")?, Filter::SERVICE);
        assert_eq!(bits("10.0.0.11:8080")?, Filter::BACKEND);
        assert_eq!(filter.byte.iter().filter(|byte| **byte != 0).count(), 3);
        Ok(())
    })
}

#[test]
fn other_limits_than_the_pinned_sizes_are_told_and_change_nothing() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let first = world.open(&["front"], AttachMode::Native)?;
        let capacity = first.capacity;
        drop(first);

        let mut spec = world.spec(&["front"], AttachMode::Native);
        spec.limits.flows *= 2;
        let second = datapath::open(&spec, &world.pins(), &object()?)?;

        assert_eq!(second.capacity, capacity);
        let told = second.warnings.iter().filter(|line| line.contains("[limits] differ")).count();
        assert_eq!(told, 1, "{:#?}", second.warnings);
        Ok(())
    })
}

#[test]
fn a_second_daemon_on_the_same_pins_is_refused() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let first = world.open(&["front"], AttachMode::Native)?;

        let second = datapath::open(&world.spec(&["back"], AttachMode::Native), &world.pins(), &object()?);

        assert!(matches!(second, Err(OpenError::Taken(_))), "{second:?}");
        assert!(datapath::detach(&world.pins()).is_err());
        drop(first);
        world.open(&["front"], AttachMode::Native).map(drop)
    })
}

#[test]
fn the_program_is_replaced_without_leaving_the_interface() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front"], AttachMode::Native)?);
        let (before, link) = (world.program("front")?, world.link_id("front")?);

        drop(world.open(&["front"], AttachMode::Native)?);

        assert_ne!(world.program("front")?, before);
        assert_eq!(world.link_id("front")?, link);
        Ok(())
    })
}

#[test]
fn a_link_whose_device_is_gone_is_attached_anew() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front", "back"], AttachMode::Native)?);
        let dead = world.index("back")?;
        world.namespace.ip("link del back\nlink add back type veth peer name back-peer\nlink set back up")?;
        world.forward()?;

        let opened = world.open(&["front", "back"], AttachMode::Native)?;

        let index = world.index("back")?;
        assert_ne!(index, dead);
        assert_eq!(opened.attached[1].index, index);
        assert!(world.program("back")?.is_some());
        assert!(!world.pins().join(format!("link_{dead}")).exists());
        Ok(())
    })
}

#[test]
fn an_interface_that_comes_back_is_attached_to_again() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let mut opened = world.open(&["front", "back"], AttachMode::Native)?;
        world.namespace.ip("link del back")?;
        let names = |attached: Vec<Attached>| attached.into_iter().map(|it| it.name).collect::<Vec<_>>();
        assert_eq!(names(opened.links.refresh()?), ["front"]);

        world.namespace.ip("link add back mtu 1400 type veth peer name back-peer")?;
        let attached = opened.links.refresh()?;

        assert_eq!((attached[1].name.as_str(), attached[1].mtu), ("back", 1400));
        assert!(world.program("back")?.is_some());
        assert_eq!(opened.links.refresh()?, attached);
        Ok(())
    })
}

#[test]
fn an_interface_that_is_configured_no_more_is_left() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front", "back"], AttachMode::Native)?);

        let opened = world.open(&["front"], AttachMode::Native)?;

        assert_eq!(world.program("back")?, None);
        assert!(opened.warnings.iter().any(|line| line.starts_with("detached from back")));
        Ok(())
    })
}

#[test]
fn auto_is_generic_on_all_interfaces_if_one_refuses_native() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        // What a page does not hold: drivers without fragments refuse it.
        world.namespace.ip("link set back mtu 9000\nlink set back-peer mtu 9000")?;

        let opened = world.open(&["front", "back"], AttachMode::Auto)?;
        let modes: Vec<_> = opened.attached.iter().map(|it| it.mode).collect();
        assert_eq!(modes, ["generic", "generic"]);
        assert!(
            opened.warnings.iter().any(|line| line.contains("generic mode on all")),
            "{:?}",
            opened.warnings
        );

        drop(opened);
        let adopted = world.open(&["front", "back"], AttachMode::Auto)?;
        assert!(adopted.attached.iter().all(|it| it.mode == "generic"));
        Ok(())
    })
}

#[test]
fn another_mode_is_taken_when_it_is_configured() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        assert_eq!(world.open(&["front"], AttachMode::Auto)?.attached[0].mode, "native");
        assert_eq!(world.open(&["front"], AttachMode::Generic)?.attached[0].mode, "generic");
        assert_eq!(world.open(&["front"], AttachMode::Native)?.attached[0].mode, "native");
        Ok(())
    })
}

#[test]
fn an_interface_that_refuses_leaves_nothing_behind() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        // The driver looks at the peer's MTU, which no preflight can know.
        world.namespace.ip("link set back-peer mtu 9000")?;

        let refused = world.open(&["front", "back"], AttachMode::Native);

        let error = refused.err().context("it was attached")?;
        assert!(matches!(error.downcast_ref(), Some(OpenError::Unfit(_))), "{error:#}");
        assert_eq!(world.program("front")?, None);
        assert!(!world.pins().exists());
        Ok(())
    })
}

#[test]
fn a_program_of_somebody_else_is_named_and_left_alone() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let theirs = world.root().join("theirs/v1");
        drop(datapath::open(&world.spec(&["front"], AttachMode::Native), &theirs, &object()?)?);
        let program = world.program("front")?.context("it is not attached")?;

        let refused = world.open(&["front", "back"], AttachMode::Native).err().context("it was opened")?;

        assert!(refused.to_string().contains(&format!("front runs another XDP program, id {program}")));
        assert_eq!(world.program("front")?, Some(program));
        assert_eq!(world.program("back")?, None);
        Ok(())
    })
}

#[test]
fn forwarding_that_is_off_is_refused_with_its_cure() -> Result<()> {
    let world = World::new()?;
    world.namespace.sysctl("net.ipv4.ip_forward", "0")?;
    world.inside(|| {
        let refused = world.open(&["front"], AttachMode::Native).err().context("it was opened")?;

        assert!(refused.to_string().contains("sysctl -w net.ipv4.ip_forward=1"), "{refused}");
        assert!(!world.pins().exists());
        Ok(())
    })
}

#[test]
fn a_foreign_map_among_the_pins_is_refused() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front"], AttachMode::Native)?);
        let pin = world.pins().join("REASONS");
        fs::remove_file(&pin)?;
        Array::<MapData, u64>::create(18, 0)?.pin(&pin)?;

        let refused = world.open(&["front"], AttachMode::Native).err().context("it was opened")?;

        assert!(matches!(refused.downcast_ref(), Some(OpenError::Failed(_))), "{refused:#}");
        let told = refused.to_string();
        assert!(told.contains("REASONS is of another shape") && told.contains("`xlb detach`"), "{told}");
        assert!(world.program("front")?.is_some());
        Ok(())
    })
}

#[test]
fn what_a_killed_start_left_half_made_is_made_anew() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let unfinished = world.root().join("pins/v1-new");
        fs::create_dir_all(&unfinished)?;
        Array::<MapData, u64>::create(1, 0)?.pin(unfinished.join("SETTINGS"))?;

        let opened = world.open(&["front"], AttachMode::Native)?;

        assert!(!opened.adopted && !unfinished.exists());
        Ok(())
    })
}

#[test]
fn another_layout_is_taken_over_without_leaving_the_interface() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        let spec = world.spec(&["front", "back"], AttachMode::Native);
        let old = world.root().join("pins/v0");
        drop(datapath::open(&spec, &old, &object()?)?);
        let link = world.link_id_in(&old, "front")?;

        let opened = world.open(&["front"], AttachMode::Native)?;

        assert!(!opened.adopted && !old.exists());
        assert_eq!(world.link_id("front")?, link);
        assert_eq!(world.program("back")?, None);
        assert!(opened.warnings.iter().any(|line| line.contains("another version's layout")));
        Ok(())
    })
}

#[test]
fn detaching_removes_everything_of_every_layout_and_says_so() -> Result<()> {
    let world = World::new()?;
    world.inside(|| {
        drop(world.open(&["front"], AttachMode::Native)?);
        let spec = world.spec(&["back"], AttachMode::Native);
        drop(datapath::open(&spec, &world.root().join("pins/v7"), &object()?)?);
        drop(world.open(&["front"], AttachMode::Native));

        let said = datapath::detach(&world.pins())?;

        assert!(said.contains(&"detached from front".to_owned()), "{said:?}");
        assert_eq!((world.program("front")?, world.program("back")?), (None, None));
        assert_eq!(fs::read_dir(world.root().join("pins"))?.count(), 0);
        assert_eq!(datapath::detach(&world.pins())?, Vec::<String>::new());
        world.open(&["front"], AttachMode::Native).map(drop)
    })
}

/// A namespace with two interfaces, and a place for pins.
struct World {
    namespace: Namespace,
    bpffs: tempfile::TempDir,
}

impl World {
    fn new() -> Result<Self> {
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

    fn forward(&self) -> Result<()> {
        self.namespace.sysctl("net.ipv4.ip_forward", "1")?;
        self.namespace.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    fn inside(&self, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
        self.namespace.inside(work)
    }

    fn root(&self) -> &Path {
        self.bpffs.path()
    }

    fn pins(&self) -> PathBuf {
        self.root().join("pins").join(format!("v{}", lb_common::LAYOUT))
    }

    fn open(&self, interfaces: &[&str], mode: AttachMode) -> Result<Opened> {
        Ok(datapath::open(&self.spec(interfaces, mode), &self.pins(), &object()?)?)
    }

    fn spec(&self, interfaces: &[&str], mode: AttachMode) -> Spec {
        Spec {
            interfaces: interfaces
                .iter()
                .map(|name| spec::Interface { name: (*name).to_owned(), mode })
                .collect(),
            api: Api { socket: PathBuf::new() },
            metrics: None,
            limits: Limits { flows: 4096, flows_ipv6: 1024, half_open_flows: 256 },
            services: vec![spec::Service {
                name: "web".to_owned(),
                listen: vec![SocketAddr::from(([192, 0, 2, 10], 80)), "[2001:db8::10]:80".parse().unwrap()],
                protocol: Protocol::Tcp,
                mode: Mode::Nat,
                sources: Vec::new(),
                scheduler: Scheduler::RoundRobin,
                health: None,
                backends: Vec::new(),
            }],
        }
    }

    fn index(&self, interface: &str) -> Result<u32> {
        Ok(nix::net::if_::if_nametoindex(interface)?)
    }

    /// The program of an interface, as `ip` tells.
    fn program(&self, interface: &str) -> Result<Option<u32>> {
        let shown = self.namespace.run(&["ip", "-json", "-details", "link", "show", interface])?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let id = &shown[0]["xdp"]["prog"]["id"];
        Ok(id.as_u64().map(u32::try_from).transpose()?)
    }

    fn link_id(&self, interface: &str) -> Result<u32> {
        self.link_id_in(&self.pins(), interface)
    }

    fn link_id_in(&self, pins: &Path, interface: &str) -> Result<u32> {
        use aya::programs::links::{FdLink, PinnedLink};

        let path = pins.join(format!("link_{}", self.index(interface)?));
        Ok(FdLink::from(PinnedLink::from_pin(path)?).info()?.id())
    }

    fn filter(&self) -> Result<Filter> {
        let map = MapData::from_pin(self.pins().join("FILTER"))?;
        Ok(Array::<_, Filter>::try_from(Map::Array(map))?.get(&0, 0)?)
    }
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

fn object() -> Result<Vec<u8>> {
    let directory = std::env::var_os("XLB_BPF_DIR")
        .map_or_else(|| lab::workspace().join("target/bpf/bpfel-unknown-none/bpf"), PathBuf::from);
    let path = directory.join("lb");
    let object = fs::read(&path).with_context(|| format!("read {}: cargo xtask build", path.display()))?;
    ensure!(!object.is_empty(), "{} is empty", path.display());
    Ok(object)
}

/// Steps that put one of everything, and what is there then.
fn everything(attached: &[Attached]) -> (Vec<Op>, Snapshot) {
    let interface = |it: &Attached| Interface { mac: it.mac, zero: 0, mtu: it.mtu, attached: 1 };
    let hop = Hop {
        destination: Mac::new([2, 0, 0, 0, 0, 9]),
        source: attached[0].mac,
        interface: attached[0].index,
        mtu: 1500,
    };
    let backend = |id, address: IpAddr| Backend {
        id,
        counters: 3,
        service_counters: 0,
        accepts: 1,
        address: address.into(),
        port: Be16::new(8080),
        hop,
        ..Backend::default()
    };
    let v4: IpAddr = [10, 0, 0, 11].into();
    let mut want = Snapshot {
        backends: BTreeMap::from([(8, backend(8, v4))]),
        backend_names: BTreeMap::from([(3, BackendName::new("web", "web-1"))]),
        service_names: BTreeMap::from([(0, "web".to_owned())]),
        tables: BTreeMap::from([
            (0, Table { mode: Mode::FullNat, sources: Vec::new(), backends: Vec::new() }),
            (5, table(Mode::FullNat, &["10.0.0.1"], &[8])),
            (6, table(Mode::FullNat, &["10.0.0.1", "10.0.0.2", "10.0.0.3"], &[])),
            (7, table(Mode::Nat, &[], &[8, 8])),
        ]),
        pools: BTreeMap::from([(0, 5), (1023, 0)]),
        services: BTreeMap::from([
            (listen("192.0.2.10:80"), ServiceValue { pool: 0, counters: 0 }),
            (listen("[2001:db8::10]:80"), ServiceValue { pool: 1023, counters: 0 }),
            (listen("192.0.2.10:0"), ServiceValue { pool: Service::NO_POOL, counters: 0 }),
        ]),
        interfaces: attached.iter().map(|it| (it.index, interface(it))).collect(),
        next_backend_id: 9,
        hop_generation: 7,
    };
    let full: Vec<String> = (0..16).map(|host| format!("fd00::{host:x}1")).collect();
    want.tables.insert(8, table(Mode::FullNat, &full.iter().map(String::as_str).collect::<Vec<_>>(), &[]));

    let mut steps = vec![Op::SetNextBackendId(9), Op::SetHopGeneration(7)];
    steps.extend(want.interfaces.iter().map(|(index, it)| Op::PutInterface(*index, *it)));
    steps.extend(want.backend_names.iter().map(|(number, name)| Op::PutBackendName(*number, name.clone())));
    steps.extend(want.service_names.iter().map(|(number, name)| Op::PutServiceName(*number, name.clone())));
    // Somebody lay in the slot before.
    steps.push(Op::PutBackend(backend(8 + MAX_BACKENDS, v4)));
    steps.extend(want.backends.values().map(|backend| Op::PutBackend(*backend)));
    steps.extend(want.tables.iter().map(|(number, table)| Op::PutTable(*number, table.clone())));
    steps.extend(want.pools.iter().map(|(pool, table)| Op::PutPool(*pool, *table)));
    steps.extend(want.services.iter().map(|(listen, value)| Op::PutService(*listen, *value)));
    (steps, want)
}

fn removal(have: &Snapshot) -> Vec<Op> {
    let mut steps: Vec<Op> = have.services.keys().copied().map(Op::DeleteService).collect();
    steps.extend(have.pools.keys().copied().map(Op::DeletePool));
    steps.extend(have.tables.keys().copied().map(Op::DeleteTable));
    steps.extend(have.backends.keys().copied().map(Op::DeleteBackend));
    steps.extend(have.service_names.keys().copied().map(Op::DeleteServiceName));
    steps.extend(have.backend_names.keys().copied().map(Op::DeleteBackendName));
    steps.extend(have.interfaces.keys().copied().map(Op::DeleteInterface));
    steps
}

fn table(mode: Mode, sources: &[&str], backends: &[u32]) -> Table {
    let sources = sources.iter().map(|source| source.parse().unwrap()).collect();
    Table { mode, sources, backends: backends.to_vec() }
}

fn listen(text: &str) -> Listen {
    let address: SocketAddr = text.parse().unwrap();
    Listen { address: address.ip(), port: Be16::new(address.port()), protocol: Protocol::Tcp }
}
