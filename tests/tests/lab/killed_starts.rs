//! Upgrades and downgrades that are killed at every step: no packet is lost, and the next start repairs what is left.
//!
//! A step is a system call that changes a pin or a link; everything else ends with the process. strace kills the daemon as
//! it enters the call, so the call has no effect: the state is that after the step before.

use std::{
    collections::{BTreeMap, BTreeSet},
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
/// The system calls that steps are made of. The question mark: not on every architecture.
const CALLS: &str = "bpf,?rename,?renameat,?renameat2,?unlink,?unlinkat";
/// Fewer are not all steps.
const LEAST_STEPS: usize = 12;

#[test]
fn a_start_that_is_killed_at_any_step_loses_no_packet_and_the_next_one_repairs_it() -> Result<()> {
    let (lab, config) = two_modes("steps")?;
    let _echoes = (lab.tcp_echoes(ECHO)?, lab.udp_echoes(datagrams::BACKEND)?);
    let mut xlb = lab.start(&config.service(datagrams::service(&lab, Mode::FullNat)))?;
    xlb.wait_until_all_are_up()?;
    let live = lab.live(Family::V4, FULL_NAT, CONNECTIONS)?;

    let exchanges =
        datagrams::during(&lab, || kill_at_each_step(&lab, &mut xlb, &variant("services")?, || Ok(())))?;

    for exchange in exchanges {
        println!("{exchange:?}");
        assert!(exchange.asked > 1000, "hardly a datagram was sent");
        assert_eq!(exchange.answered, exchange.asked, "datagrams are lost");
    }
    live.finish_unbroken()?;
    let metrics = xlb.metrics()?;
    let internal: Vec<_> =
        metrics.lines("xlb_dropped_packets_total").filter(|line| line.contains("internal")).collect();
    assert!(internal.len() == 1 && internal[0].ends_with(" 0"), "{internal:?}");
    Ok(())
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
    println!("an upgrade has {up} steps, a downgrade {down}");

    let mut repairs = Repairs { lab, xlb, pins, forwarded: 0.0 };
    // By the build that they start from.
    let mut left = [upgrade, downgrade].map(|steps| steps.into_iter().enumerate());
    let mut running = 0;
    while left.iter().any(|steps| steps.len() > 0) {
        let to = 1 - running;
        match left[running].next() {
            Some((number, step)) => {
                die_at(lab, builds[to], &step)?;
                running = if number % 2 == running { to } else { running };
                repairs.start(builds[running], &step)?;
                check()?;
            }
            None => {
                repairs.xlb.start_again_as(builds[to])?;
                repairs.xlb.stop()?;
                running = to;
            }
        }
    }
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
    fn start(&mut self, build: &Path, step: &Step) -> Result<()> {
        let context = || format!("start {} around a kill at {step:?}", build.display());
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
    /// The beginning of strace's line, up to what differs between starts.
    what: String,
}

/// Starts a build, stops it when it answers, and returns the steps of its start.
fn steps(lab: &Lab, xlb: &Daemon, build: &Path) -> Result<Vec<Step>> {
    let trace = lab.directory().join("trace");
    let mut traced = start_traced(lab, build, &trace, None)?;
    eventually(START, "the traced xlb answers", || Ok(xlb.output(&["status"])?.code == 0))?;
    kill(Pid::from_raw(traced.id().cast_signed()), Signal::SIGTERM)?;
    wait(&mut traced)?;

    let pins = format!("{}/", lab.pins().display());
    let mut numbers = BTreeMap::<&str, usize>::new();
    let mut steps = Vec::new();
    let text = fs::read_to_string(&trace)?;
    for line in first_thread(&text) {
        let Some((call, _)) = line.split_once('(') else { continue };
        let number = numbers.entry(call).or_default();
        *number += 1;
        let what = beginning(line);
        let pin = line.split_once(&pins).map(|(_, pin)| pin);
        let is_step = match call {
            // aya makes the maps in any order. The state after their pins is that before the next step.
            "bpf" if what == "bpf(BPF_OBJ_PIN" => pin.is_some_and(|pin| pin.starts_with(char::is_lowercase)),
            "bpf" => what.starts_with("bpf(BPF_LINK_"),
            // The daemon also replaces its socket.
            _ => pin.is_some(),
        };
        // The daemon removes pins that need not exist, and tries what the kernel supports.
        if is_step && !line.contains(" = -1 ") {
            steps.push(Step { call: call.to_owned(), number: *number, what: what.to_owned() });
        }
    }
    Ok(steps)
}

/// Starts a build, which is killed when it comes to a step.
fn die_at(lab: &Lab, build: &Path, step: &Step) -> Result<()> {
    let trace = lab.directory().join("trace");
    let status = wait(&mut start_traced(lab, build, &trace, Some(step))?)?;
    ensure!(status.signal() == Some(Signal::SIGKILL as i32), "xlb ended with {status}, not at {step:?}");
    let text = fs::read_to_string(&trace)?;
    let last = first_thread(&text).filter(|line| !line.starts_with(['+', '<'])).last().unwrap_or_default();
    ensure!(beginning(last) == step.what, "xlb was killed at {last}, not at {step:?}");
    Ok(())
}

/// The lines of the first thread, which opens the data plane.
fn first_thread(trace: &str) -> impl Iterator<Item = &str> {
    let thread = trace.split(' ').next().unwrap_or_default();
    let lines = trace.lines().filter_map(|line| line.split_once(' '));
    lines.filter(move |(of, _)| *of == thread).map(|(_, line)| line.trim_start())
}

/// The call and its command.
fn beginning(line: &str) -> &str {
    line.split([',', '"']).next().unwrap_or_default()
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
