//! Opens the data plane: checks the host, then takes over the running data plane or creates one.
//!
//! ```text
//!   judge: host ─▶ lock ─▶ pins, interfaces, memory
//!   (nothing has been changed so far)
//!   open:  new maps, filled ─▶ manifest ─▶ links, one by one ─▶ program ─▶ grace period ─▶ remove what is unused
//! ```
//!
//! If the daemon is killed at any step, each link still has a program with complete maps and a pinned manifest. The
//! next start takes over from there, and removes the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use lb_common::settings::{PortPool, Settings};
use nix::errno::Errno;

use super::{
    Attached, Capacity,
    attach::{self, Links, Outcome, Pinned, Refused},
    first_release,
    kernel::{
        KernelDatapath,
        flow_events::RingEvents,
        grace_period,
        load::{self, Basis, Loaded, Share},
        manifest::Manifest,
        neighbour_requests::NeighbourRequests,
        traces::{TraceLevel, Traces},
    },
    layout::MapLayout,
    lock::{Lock, PinsInUse},
    pins,
    preflight::{self, Cause, host::Host},
    shapes::{self, Rings, Sizes},
    sharing::SharedTables,
    takeover::Takeover,
};
use crate::spec::{Limits, Spec};

/// A running data plane.
#[derive(Debug)]
pub struct Opened {
    /// The maps: for the controller alone.
    pub datapath: KernelDatapath,
    /// The ring buffer of the program's neighbour requests.
    pub neighbour_requests: NeighbourRequests,
    /// The program's traces, if the log shows them.
    pub traces: Option<Traces>,
    /// The flow tables, for the group if there is one.
    pub shared: Option<SharedTables<RingEvents>>,
    /// Holds the lock. Attaches again to interfaces that were removed and added again, and restores pins.
    pub links: Links,
    /// All interfaces of the spec, in its order.
    pub attached: Vec<Attached>,
    /// The sizes of the pinned maps, if there are any, whatever the spec says.
    pub capacity: Capacity,
    /// A running data plane was taken over.
    pub adopted: bool,
    /// What the operator should know about this start.
    pub notes: Vec<String>,
    /// Problems that stay until the next start, and how to solve them.
    pub warnings: Vec<String>,
}

/// Why it cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Exit 78.
    #[error("{}", lines(.0))]
    Unfit(Vec<Cause>),
    /// Exit 5.
    #[error("{0}: stop it, or choose another pin directory with XLB_PINS")]
    Taken(#[from] PinsInUse),
    /// Exit 1.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// A host that passed all checks.
#[derive(Debug)]
pub struct Fit<'a> {
    spec: &'a Spec,
    pins: &'a Path,
    host: Host,
    found: Found,
    /// `None`: there are no pins to lock yet.
    lock: Option<Lock>,
}

/// Checks, without changing anything, whether the data plane with the pins in `pins` can be opened. (Pins of links that
/// a killed daemon left unfinished are completed.)
pub fn judge<'a>(spec: &'a Spec, pins: &'a Path) -> Result<Fit<'a>, OpenError> {
    let host = Host::read(pins)?;
    refuse(preflight::check_host(&host))?;
    let lock = if pins.is_dir() { Some(Lock::take(pins)??) } else { None };
    let found = Found::read(pins, spec, &host)?;
    refuse(found.check(spec, &host))?;
    Ok(Fit { spec, pins, host, found, lock })
}

/// Opens the data plane with the program in `object`.
///
/// On failure everything is rolled back. A data plane that was to be taken over continues with the program that it
/// has.
pub fn open(fit: Fit<'_>, object: &[u8]) -> Result<Opened, OpenError> {
    let Fit { spec, pins, host, found, lock } = fit;
    let missing = pins::missing(pins);
    let (lock, found) = match lock {
        Some(lock) => (lock, found),
        None => {
            let lock = Lock::take(pins)??;
            // Another daemon may have pinned something since, and have been killed.
            (lock, Found::read(pins, spec, &host)?)
        }
    };

    // While holding the lock, so that no other daemon uses them.
    let mut notes = found.left_by_others();
    notes.extend(found.takeover.losses());
    let (mut loaded, outcome) = run(spec, &host, &found, pins, object).inspect_err(|_| {
        if let Err(error) = found.roll_back(pins) {
            log::warn!("{error:#}");
        }
        pins::remove_empty(&missing);
    })?;
    notes.extend(preflight::veths(spec, &host));
    notes.extend(tidy(pins, &host, &found, &outcome.attached)?);
    remove_replaced(pins, loaded.program.id()?, &found.others)?;
    let warnings = outcome.warnings.into_iter().chain(TraceLevel::of_log().warning()).collect();

    let Loaded { program, datapath, neighbour_requests, traces, shared } = loaded;
    let links = Links::open(program, lock, pins, &outcome.attached)?;
    let capacity = capacity(&datapath.settings()?, shared.is_some(), &host);
    let adopted = found.manifest.is_some() || !found.takeover.carried.is_empty();
    let attached = outcome.attached;
    Ok(Opened {
        datapath,
        neighbour_requests,
        traces,
        shared,
        links,
        attached,
        capacity,
        adopted,
        notes,
        warnings,
    })
}

fn refuse(causes: Vec<Cause>) -> Result<(), OpenError> {
    if causes.is_empty() { Ok(()) } else { Err(OpenError::Unfit(causes)) }
}

/// What is pinned.
#[derive(Debug)]
struct Found {
    /// The manifest of the running program, if there is one.
    manifest: Option<Manifest>,
    takeover: Takeover,
    /// The pinned sizes; otherwise those of the spec.
    sizes: Sizes,
    /// All links, including those of older versions.
    links: Vec<Pinned>,
    /// The pin directories of older versions.
    others: Vec<Older>,
    /// Running programs without a manifest: their maps are not known.
    unknown: BTreeSet<u32>,
}

/// The pin directory of an older version.
#[derive(Debug)]
struct Older {
    directory: PathBuf,
    /// Everything except its flows is copied.
    are_carried: bool,
}

impl Found {
    fn read(pins: &Path, spec: &Spec, host: &Host) -> anyhow::Result<Self> {
        let mut links = attach::pinned(pins)?;
        let mut unknown = BTreeSet::new();
        for link in links.iter().filter(|link| link.is_alive(&host.links)) {
            if Manifest::read(pins, link.program)?.is_none() {
                unknown.insert(link.program);
            }
        }
        let (mut others, mut first_release) = (Vec::new(), None);
        for directory in pins::older_directories(pins)? {
            links.extend(attach::pinned(&directory)?);
            let maps = first_release::maps(&directory)?;
            let are_carried = maps.is_some();
            first_release = first_release.or(maps);
            others.push(Older { directory, are_carried });
        }
        // A link in one of these directories has the program of this version if a start was killed at that point.
        let (manifest, sizes, takeover) = match (in_force(pins, &links, spec, host)?, first_release) {
            (Some(Candidate { manifest, sizes, takeover, .. }), _) => (Some(manifest), sizes, takeover),
            (None, Some(maps)) => {
                let sizes = Sizes::of(&spec.limits);
                let room = first_release::room(sizes.room);
                (None, Sizes { room, ..sizes }, Takeover::of_contents(maps))
            }
            (None, None) => (None, Sizes::of(&spec.limits), Takeover::default()),
        };
        load::verify_kept(pins, &takeover, &sizes)?;
        Ok(Self { manifest, takeover, sizes, links, others, unknown })
    }

    fn check(&self, spec: &Spec, host: &Host) -> Vec<Cause> {
        let ours: BTreeMap<u32, u32> = self.links.iter().map(|link| (link.interface, link.program)).collect();
        let mut causes = preflight::check_interfaces(spec, host, &ours);
        causes.extend(preflight::check_announce(spec, host));
        let new: Vec<_> =
            shapes::pinned(&self.sizes).into_iter().filter(|it| !self.takeover.keeps(it.name)).collect();
        let needed = shapes::memory_bytes(&new, host.cpus);
        causes.extend(preflight::check_memory(needed, self.manifest.is_some(), host));
        if self.manifest.is_none() {
            causes.extend(preflight::check_ports(spec, host.local_ports));
        }
        causes
    }

    /// The live link to an interface, of any version.
    fn held(&self, interface: u32, host: &Host) -> Option<&Pinned> {
        self.links.iter().find(|link| link.interface == interface && link.is_alive(&host.links))
    }

    fn left_by_others(&self) -> Vec<String> {
        let line = |other: &Older| {
            let result = match (&self.manifest, other.are_carried) {
                (Some(_), _) => {
                    "an older version: the interrupted upgrade is completed, and the older version's flows are lost"
                }
                (None, true) => {
                    "xlb 0.1.0: its interfaces, backends and counters are taken over, its flows are lost"
                }
                (None, false) => {
                    "an older version: its interfaces are taken over, its flows and counters are lost"
                }
            };
            format!("{} belongs to {result}", other.directory.display())
        };
        let replaced = |program: &u32| {
            format!("the running program {program} has no manifest: its flows and counters are lost")
        };
        self.others.iter().map(line).chain(self.unknown.iter().map(replaced)).collect()
    }

    /// Removes what a failed start created: all pins except those of programs that run or are pinned, and of the one
    /// that was to be taken over.
    fn roll_back(&self, pins: &Path) -> anyhow::Result<()> {
        // A link in the directory of an older version may have the new program already.
        let mut running = attach::pinned(pins)?;
        for other in &self.others {
            running.extend(attach::pinned(&other.directory)?);
        }
        let running = running.into_iter().map(|link| link.program);
        let before = self.manifest.as_ref().map(|manifest| manifest.program);
        remove_unused(pins, &running.chain(before).chain(load::pinned_program(pins)?).collect())
    }
}

/// A program whose maps can be taken over, and what becomes of them.
struct Candidate {
    manifest: Manifest,
    /// `None`: its settings are gone, or empty.
    settings: Option<Settings>,
    /// The pinned sizes; otherwise those of the spec.
    sizes: Sizes,
    takeover: Takeover,
    /// It runs on an interface.
    is_alive: bool,
}

impl Candidate {
    fn read(pins: &Path, program: u32, is_alive: bool, limits: &Limits) -> anyhow::Result<Option<Self>> {
        let Some(manifest) = Manifest::read(pins, program)? else { return Ok(None) };
        let settings = load::pinned_settings(pins, &manifest)?;
        let sizes = settings.as_ref().map_or_else(|| Sizes::of(limits), Sizes::pinned);
        let has_keys = settings.as_ref().is_some_and(load::has_keys);
        let takeover = Takeover::from(&manifest, pins, &shapes::pinned(&sizes), has_keys);
        Ok(Some(Self { manifest, settings, sizes, takeover, is_alive }))
    }

    /// Settings come first, because all sizes depend on them. Then it matters how much can be kept.
    fn rank(&self) -> impl Ord + use<> {
        (self.settings.is_some(), self.is_alive, self.takeover.extent(), self.manifest.program)
    }
}

/// The program that is taken over. If the daemon was killed while replacing links, two programs run.
fn in_force(pins: &Path, links: &[Pinned], spec: &Spec, host: &Host) -> anyhow::Result<Option<Candidate>> {
    let linked = links.iter().map(|link| (link.program, link.is_alive(&host.links)));
    let pinned = load::pinned_program(pins)?.map(|program| (program, false));
    let read = |(program, is_alive)| Candidate::read(pins, program, is_alive, &spec.limits).transpose();
    let candidates: Vec<_> = linked.chain(pinned).filter_map(read).collect::<anyhow::Result<_>>()?;
    Ok(candidates.into_iter().max_by_key(Candidate::rank))
}

fn run(
    spec: &Spec,
    host: &Host,
    found: &Found,
    pins: &Path,
    object: &[u8],
) -> Result<(Loaded, Outcome), OpenError> {
    let (first, last) = host.local_ports;
    let basis = Basis {
        directory: pins,
        takeover: &found.takeover,
        sizes: found.sizes,
        ports: PortPool::around(first, last),
        share: spec.group.as_ref().map(Share::of),
    };
    let loaded = load::load(object, &basis).map_err(or_no_memory)?;
    attach_all(spec, host, found, pins, loaded)
}

fn attach_all(
    spec: &Spec,
    host: &Host,
    found: &Found,
    pins: &Path,
    mut loaded: Loaded,
) -> Result<(Loaded, Outcome), OpenError> {
    let targets = spec.interfaces.iter().filter_map(|interface| {
        let link = host.link(&interface.name)?;
        Some(attach::Target { link, mode: interface.mode, held: found.held(link.index, host) })
    });
    let targets: Vec<_> = targets.collect();
    let outcome = attach::attach(loaded.program.xdp()?, &targets, pins)?;
    // Last, because nothing may fail after it: without links, the former pin is the only way to the former maps.
    loaded.program.pin(pins)?;
    Ok((loaded, outcome))
}

/// Removes links to interfaces that are gone or no longer configured.
fn tidy(pins: &Path, host: &Host, found: &Found, attached: &[Attached]) -> anyhow::Result<Vec<String>> {
    let kept: Vec<PathBuf> = attached.iter().map(|it| pins::link(pins, it.index.0)).collect();
    let mut notes = Vec::new();
    for link in found.links.iter().filter(|link| !kept.contains(&link.path)) {
        link.remove()?;
        let interface = host.links.iter().find(|it| it.index == link.interface);
        match interface {
            Some(it) if attached.iter().any(|attached| attached.index.0 == it.index) => {}
            Some(it) => notes.push(format!("detached from {}, which is no longer configured", it.name)),
            None => notes.push(format!("removed the link to interface {}, which is gone", link.interface)),
        }
    }
    Ok(notes)
}

/// Removes the pins of replaced programs.
fn remove_replaced(pins: &Path, program: u32, others: &[Older]) -> anyhow::Result<()> {
    remove_unused(pins, &BTreeSet::from([program]))?;
    others.iter().try_for_each(|other| pins::remove_directory(&other.directory))
}

/// Removes the pins that none of these programs uses. Waits for a grace period first, because packets may still be in a
/// replaced program and call its slow paths.
fn remove_unused(pins: &Path, programs: &BTreeSet<u32>) -> anyhow::Result<()> {
    grace_period::wait()?;
    let mut maps = BTreeSet::new();
    for program in programs {
        let manifest = Manifest::read(pins, *program)?;
        maps.extend(manifest.iter().flat_map(|it| &it.maps).map(MapLayout::pin_name));
    }
    pins::unused(pins, programs, &maps)?.iter().try_for_each(|path| pins::remove_file(path))
}

fn capacity(settings: &Settings, shares_flows: bool, host: &Host) -> Capacity {
    Capacity {
        flows: settings.shape4.flows(),
        flows_ipv6: settings.shape6.flows(),
        half_open_flows: settings.shape4.half_open,
        room: Sizes::pinned(settings).room,
        ports: settings.ports,
        own_ports: settings.own_ports,
        map_memory_bytes: memory_bytes(&Sizes::pinned(settings), shares_flows, host),
    }
}

/// The memory of all maps.
fn memory_bytes(sizes: &Sizes, shares_flows: bool, host: &Host) -> u64 {
    let rings =
        Rings { traces: TraceLevel::of_log().ring_bytes(), flow_events: Rings::flow_events(shares_flows) };
    shapes::memory_bytes(&shapes::all(sizes, rings), host.cpus)
}

/// A memory limit that `MemAvailable` does not show, such as that of a control group.
fn or_no_memory(error: anyhow::Error) -> OpenError {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        let errno = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        errno == Some(Errno::ENOMEM as i32)
    };
    if error.chain().any(is_full) {
        let remedy = "lower `flows` and `flows_ipv6` in [limits], or raise MemoryMax= of xlb's systemd unit";
        return OpenError::Unfit(vec![Cause::new(format!("no memory for the maps ({error:#})"), remedy)]);
    }
    error.into()
}

impl From<anyhow::Error> for OpenError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Refused> for OpenError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Host(cause) => Self::Unfit(vec![cause]),
            Refused::Failed(error) => Self::Failed(error),
        }
    }
}

fn lines(causes: &[Cause]) -> String {
    causes.iter().map(Cause::to_string).collect::<Vec<_>>().join("\n")
}
