//! Upgrades and downgrades that are killed at every step: no packet is lost, and the next start repairs what is left.
//!
//! A step is a system call that changes a pin, a link, or the contents of a map; everything else ends with the process. strace
//! kills the daemon as it enters the call, so the call has no effect: the state is that after the step before. All steps are
//! made by one thread; the tests check this for pins and links.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, OpenOptions},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_common::service::Mode;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::lab::{
    Daemon, Family, Lab, daemon,
    daemon::{binary, environment},
    eventually,
};

use crate::{
    datagrams,
    survival::{CONNECTIONS, ECHO, FULL_NAT, two_modes},
    upgrade::{PAUSE, forwarded, serve, variant},
};

/// Limit for a traced start, to its answer or to the kill.
const START: Duration = Duration::from_secs(30);
/// The system calls that steps are made of. In strace, `?` ignores calls that the architecture does not have.
const CALLS: &str = "bpf,?rename,?renameat,?renameat2,?unlink,?unlinkat";
/// Minimum number of steps (changes of pins and links, and writes) of a start; fewer mean that the trace is incomplete.
const LEAST_STEPS: usize = 20;
/// Allowed kills per step, on average, that hit a different state from the intended one.
const MISSES: usize = 2;

#[test]
fn a_start_that_is_killed_at_any_step_loses_no_packet_and_the_next_one_repairs_it() -> Result<()> {
    let (lab, config) = two_modes("steps")?;
    let _echoes = (lab.tcp_echoes(ECHO)?, lab.udp_echoes(datagrams::BACKEND)?);
    let mut xlb =
        lab.start(&config.limits(datagrams::LIMITS).service(datagrams::service(&lab, Mode::FullNat)))?;
    xlb.wait_until_all_are_up()?;
    let live = lab.live(Family::V4, FULL_NAT, CONNECTIONS)?;

    let exchanges =
        datagrams::during(&lab, || kill_at_each_step(&lab, &mut xlb, &variant("services")?, || Ok(())))?;

    datagrams::none_is_lost(&xlb, &exchanges)?;
    live.finish_unbroken().map(drop)
}

#[test]
fn a_start_with_another_flow_record_that_is_killed_at_any_step_serves_again_after_the_next_one() -> Result<()>
{
    let (lab, config) = two_modes("records")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let mut xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    lab.client.inside(serve)?;

    kill_at_each_step(&lab, &mut xlb, &variant("record")?, || {
        // Between two links, no flow works. Once the next start is complete, new ones do.
        let is_served = || Ok(serve().is_ok());
        lab.client.inside(|| eventually(PAUSE, "a new connection is served", is_served)).map(drop)
    })
}

/// Upgrades from our build to another one, and back, and kills each start at one of its steps. After a kill, either build may
/// start next. Half of the kills are repaired by the killed build, half by the former one, and the next kill goes on from
/// there. `check` runs after each repair.
fn kill_at_each_step(
    lab: &Lab,
    xlb: &mut Daemon,
    other: &Path,
    check: impl Fn() -> Result<()>,
) -> Result<()> {
    let ours = binary()?;
    let builds = [ours.as_path(), other];
    let pins = kinds_of_pins(lab)?;
    xlb.stop()?;
    let upgrade = steps(lab, xlb, other)?;
    let downgrade = steps(lab, xlb, &ours)?;
    let (up, down) = (upgrade.len(), downgrade.len());
    ensure!(up >= LEAST_STEPS && down >= LEAST_STEPS, "steps are missing: {upgrade:#?}\n{downgrade:#?}");
    let has_writes = |steps: &[Step]| steps.iter().any(|it| matches!(it.state, State::BeforeWrite(..)));
    ensure!(
        has_writes(&upgrade) && has_writes(&downgrade),
        "writes are missing: {upgrade:#?}\n{downgrade:#?}"
    );
    println!("an upgrade: {:?}", upgrade.iter().map(|step| &step.state).collect::<Vec<_>>());

    let mut repairs = Repairs { lab, xlb, pins, forwarded: 0.0 };
    let limit = (1 + MISSES) * (up + down);
    // By the build that they start from.
    let mut left = [upgrade, downgrade].map(VecDeque::from);
    let (mut running, mut kills) = (0, [0, 0]);
    while left.iter().any(|steps| !steps.is_empty()) {
        let to = 1 - running;
        match left[running].pop_front() {
            Some(step) => {
                let number: usize = kills[running];
                kills[running] += 1;
                ensure!(kills.iter().sum::<usize>() <= limit, "not killed at {step:?} with {limit} kills");
                let state = die_at(lab, builds[to], &step)?;
                let context = format!("a kill in {state:?}");
                left[running].retain(|other| other.state != state);
                if step.state != state {
                    left[running].push_back(step);
                }
                running = if number % 2 == running { to } else { running };
                repairs.start(builds[running], &context)?;
                check()?;
            }
            None => {
                repairs.xlb.start_again_as(builds[to])?;
                repairs.xlb.stop()?;
                running = to;
            }
        }
    }
    println!("{} kills", kills.iter().sum::<usize>());
    xlb.start_again_as(&ours)
}

struct Repairs<'a> {
    lab: &'a Lab,
    xlb: &'a mut Daemon,
    /// After each repair.
    pins: BTreeSet<String>,
    forwarded: f64,
}

impl Repairs<'_> {
    /// Starts a build, which must leave all pins and no other and go on counting, and stops it.
    fn start(&mut self, build: &Path, kill: &str) -> Result<()> {
        let context = || format!("start {} after {kill}", build.display());
        self.xlb.start_again_as(build).with_context(context)?;
        let pins = kinds_of_pins(self.lab)?;
        ensure!(pins == self.pins, "{}: {pins:#?} instead of {:#?}", context(), self.pins);
        let forwarded = forwarded(self.xlb)?;
        ensure!(forwarded > self.forwarded, "{}: {forwarded} after {}", context(), self.forwarded);
        self.forwarded = forwarded;
        self.xlb.stop()
    }
}

/// The names of the pins, without the versions of maps and the ids of programs, but with how many there are of each.
fn kinds_of_pins(lab: &Lab) -> Result<BTreeSet<String>> {
    let mut counts = BTreeMap::<String, usize>::new();
    for name in lab.pin_names()? {
        let kind = name.rsplit_once('_').map_or(name.as_str(), |(kind, _)| kind);
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    Ok(counts.into_iter().map(|(kind, count)| format!("{kind} x {count}")).collect())
}

#[derive(Debug)]
struct Step {
    /// The name of the system call.
    call: String,
    /// strace counts the calls of this name in each thread: this is the count in the thread that opens the data plane.
    number: usize,
    state: State,
}

/// The state that a kill at a step leaves.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Before a change of a link, or of a pin: the beginning of strace's line, and which of those that begin like this.
    Before(String, usize),
    /// After the loader has pinned this number of maps. It makes them in any order.
    PinnedMaps(usize),
    /// Before this write to a map. The loader's own writes, which come earlier, change nothing (`section_values`).
    BeforeWrite(String, usize),
}

/// Starts a build, stops it when it answers, and returns the steps of its start.
///
/// It makes all changes of pins and links before it answers. Of the writes to each map, the first, the middle and the last
/// one are steps, up to the last change of a pin.
fn steps(lab: &Lab, xlb: &Daemon, build: &Path) -> Result<Vec<Step>> {
    let trace = lab.directory().join("trace");
    let mut traced = start_traced(lab, build, &trace, None)?;
    eventually(START, "the traced xlb answers", || Ok(xlb.output(&["status"])?.code == 0))?;
    kill(Pid::from_raw(traced.id().cast_signed()), Signal::SIGTERM)?;
    wait(&mut traced)?;

    let text = fs::read_to_string(&trace)?;
    let (first, others) = by_thread(&text);
    let pins = format!("{}/", lab.pins().display());
    let other = others.into_iter().find(|line| line.contains(&pins) || line.starts_with("bpf(BPF_LINK_"));
    ensure!(other.is_none(), "a thread that is not traced changes pins or links: {other:?}");

    let mut all = Progress::of(&first, &pins).steps;
    let end = all.iter().rposition(|step| matches!(step.state, State::Before(..))).unwrap_or_default();
    all.truncate(end + 1);
    let mut writes = BTreeMap::<String, usize>::new();
    for step in &all {
        if let State::BeforeWrite(map, number) = &step.state {
            writes.insert(map.clone(), *number);
        }
    }
    all.retain(|step| match &step.state {
        State::Before(..) => true,
        State::PinnedMaps(count) => *count > 0,
        State::BeforeWrite(map, number) => [1, writes[map].div_ceil(2), writes[map]].contains(number),
    });
    Ok(all)
}

/// Starts a build, which is killed when it comes to a step. Returns the state that it left, which differs from the
/// step's only while maps are being pinned.
fn die_at(lab: &Lab, build: &Path, step: &Step) -> Result<State> {
    let trace = lab.directory().join("trace");
    let status = wait(&mut start_traced(lab, build, &trace, Some(step))?)?;
    ensure!(status.signal() == Some(Signal::SIGKILL as i32), "xlb ended with {status}, not at {step:?}");
    let text = fs::read_to_string(&trace)?;
    let progress = Progress::of(&by_thread(&text).0, &format!("{}/", lab.pins().display()));
    if matches!(step.state, State::PinnedMaps(_)) {
        return Ok(State::PinnedMaps(progress.pinned_maps));
    }
    let last = progress.steps.into_iter().last().filter(|last| last.number == step.number);
    let state = last.map(|last| last.state);
    ensure!(state.as_ref() == Some(&step.state), "xlb was killed in {state:?}, not at {step:?}");
    Ok(step.state.clone())
}

/// What a traced start has done.
#[derive(Default)]
struct Progress {
    /// All, in their order.
    steps: Vec<Step>,
    /// Calls by name.
    calls: BTreeMap<String, usize>,
    /// Steps of a kind, by what [`State`] says of them.
    counts: BTreeMap<String, usize>,
    pinned_maps: usize,
    /// Names of maps by file descriptor, as long as those in the kernel.
    maps: BTreeMap<u32, String>,
    is_loaded: bool,
}

impl Progress {
    fn of(trace: &[&str], pins: &str) -> Self {
        let mut progress = Self::default();
        trace.iter().for_each(|line| progress.read(line, pins));
        progress
    }

    fn read(&mut self, line: &str, pins: &str) {
        let Some((call, arguments)) = line.split_once('(') else { return };
        let number = count(&mut self.calls, call);
        // It removes pins that need not exist, and tries what the kernel supports.
        if arguments.contains(" = -1 ") {
            return;
        }
        let pin = arguments.split_once(pins).and_then(|(_, pin)| pin.split('"').next());
        let command = if call == "bpf" { arguments.split(',').next().unwrap_or_default() } else { "" };
        let state = match (command, pin) {
            ("BPF_MAP_CREATE", _) => return self.learn(line, quoted_after(line, "map_name=")),
            ("BPF_OBJ_GET", Some(pin)) => return self.learn(line, pin.rsplit_once('_').map(|(map, _)| map)),
            ("BPF_PROG_LOAD", _) => {
                self.is_loaded |= line.contains("prog_name=\"lb\"");
                return;
            }
            ("BPF_OBJ_PIN", Some(pin)) if pin.starts_with(char::is_uppercase) && !self.is_loaded => {
                let before = self.pinned_maps;
                self.pinned_maps += usize::from(line.ends_with(" = 0"));
                State::PinnedMaps(before)
            }
            ("BPF_MAP_UPDATE_ELEM", _) if self.is_loaded => {
                let Some(map) = number_after(line, "map_fd=").and_then(|fd| self.maps.get(&fd)) else {
                    return;
                };
                State::BeforeWrite(map.clone(), count(&mut self.counts, &format!("write {map}")))
            }
            // The daemon also replaces its socket.
            ("BPF_OBJ_PIN" | "", Some(_)) | ("BPF_LINK_CREATE" | "BPF_LINK_UPDATE", _) => {
                let what = line.split([',', '"']).next().unwrap_or_default();
                State::Before(what.to_owned(), count(&mut self.counts, what))
            }
            _ => return,
        };
        self.steps.push(Step { call: call.to_owned(), number, state });
    }

    /// Learns which map the descriptor that a call returns belongs to.
    fn learn(&mut self, line: &str, map: Option<&str>) {
        const LENGTH: usize = 15;
        let fd = line.rsplit_once(" = ").and_then(|(_, fd)| fd.parse().ok());
        let Some(fd) = fd else { return };
        match map {
            Some(map) if !map.is_empty() => self.maps.insert(fd, map.chars().take(LENGTH).collect()),
            Some(_) | None => self.maps.remove(&fd),
        };
    }
}

/// Counts, and returns the count.
fn count(counts: &mut BTreeMap<String, usize>, what: &str) -> usize {
    let count = counts.entry(what.to_owned()).or_default();
    *count += 1;
    *count
}

fn quoted_after<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_once(key)?.1.strip_prefix('"')?.split('"').next()
}

fn number_after(line: &str, key: &str) -> Option<u32> {
    line.split_once(key)?.1.split([',', '}']).next()?.parse().ok()
}

/// The lines of the first thread, which opens the data plane, and those of the others.
fn by_thread(trace: &str) -> (Vec<&str>, Vec<&str>) {
    let first = trace.split(' ').next().unwrap_or_default();
    let lines = trace.lines().filter_map(|line| line.split_once(' '));
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for (thread, line) in lines {
        let of_thread = if thread == first { &mut ours } else { &mut others };
        of_thread.push(line.trim_start());
    }
    (ours, others)
}

/// `xlb run` below strace, killed at a step. The process is xlb itself.
fn start_traced(lab: &Lab, build: &Path, trace: &Path, killed_at: Option<&Step>) -> Result<Child> {
    let log = OpenOptions::new().append(true).open(daemon::log_path(lab.directory()))?;
    let mut command = lab.xlb.command("strace");
    // --daemonize=grandchild: strace itself. With --seccomp-bpf, which is faster, it injects no signal.
    command.args(["--daemonize=grandchild", "-f", "-qq", "-s", "4096"]);
    command.args(["-e", &format!("trace={CALLS}")]).arg("-o").arg(trace);
    if let Some(Step { call, number, .. }) = killed_at {
        command.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
    }
    command.arg(build).arg("run").envs(environment(lab.directory()));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("start strace")
}

fn wait(traced: &mut Child) -> Result<ExitStatus> {
    let mut status = None;
    eventually(START, "the traced xlb ends", || {
        status = traced.try_wait()?;
        Ok(status.is_some())
    })?;
    status.context("it has no status")
}
