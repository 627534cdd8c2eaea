//! `xlb run`: starts the tasks, and ends them.
//!
//! ```text
//!  file ─▶ spec ─┐                      ┌─▶ probes ────┐
//!  overlay ──────┼─▶ open the datapath ─┼─▶ neighbours ┼─events─▶ controller (this task)
//!  sockets ──────┘                      └─▶ API ───────┘
//! ```
//!
//! All checks come before the first change: the file, the preflight of the datapath, the overlay, the sockets.
//! Stopping leaves the data plane as it is.

mod boot;
mod cluster;
mod grace_periods;
mod group;
mod metrics;
mod pins;
mod signals;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::Path,
    pin::pin,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use cluster::Configuration;
use lb_common::settings::PortPool;
use log::{info, warn};
use rustix::thread::clear_ambient_capability_set;
use tokio::{
    runtime,
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    announced_addresses,
    api::{
        handle::ControllerHandle,
        listen::{self, Part, Pending},
        server,
    },
    cli::{check::Checked, failure::Failure, run::Options},
    controller::{self, Controller, Ending, Start, local_host::LocalHost, track::leave},
    datapath::{
        self, DetachError, Fit, OpenError, Opened,
        preflight::{self, Cause, host},
        shapes::{Rings, memory::Memory},
    },
    drain_store, duration,
    event::Since,
    exit::Exit,
    group::{self as peers, tls},
    hash_key::{HashKey, KeyError},
    health,
    interface_address::InterfaceAddress,
    interface_settings::InterfaceSettings,
    limited_file::{self, Readers, Unusable},
    named::Named,
    neighbours, paths,
    problem::{Problem, ProblemKind},
    role_store,
    spec::{
        self, Mistakes, Source, Spec,
        source_ports::SourcePorts,
        store::{Store, StoreError},
    },
    track_file::{HANDOVER, TrackFile, UNFIT},
};

/// Events queued for the controller. Senders wait while the queue is full.
const EVENTS: usize = 1024;
/// Neighbour requests in the queue.
const NEIGHBOUR_REQUESTS: usize = 256;
const WITHOUT_PROGRAM: &str = "this xlb was built without the XDP program: build it with `cargo xtask build`";
/// Bytes of a configuration of keepalived.
const MOST_OF_KEEPALIVED: u64 = 1 << 20;
/// Time for tasks to end.
const GRACE: Duration = Duration::from_secs(5);

/// `xlb check`: validates a file, and computes the memory and source ports that it needs.
pub fn check(file: &Path) -> Result<Checked, Failure> {
    let (source, spec) = read(file, &host::addresses()?, "`xlb check FILE`")?;
    let in_force = cluster::in_force(file, source, &spec, paths::state());
    let cpus = host::cpus()?;
    let (first, last) = host::local_ports()?;
    let ports = SourcePorts::of(&spec, PortPool::around(first, last));
    let no_ports = preflight::check_ports(&spec, (first, last)).map(|cause| cause.to_string());
    let key = spec.hash.key_file.as_deref().map(HashKey::read).and_then(Result::err);
    let warnings =
        no_ports.into_iter().chain(key.map(|error| error.to_string())).chain(spec.unusable_files());
    let group = spec
        .group
        .iter()
        .filter_map(|it| tls::check_files(it).and_then(|()| tls::check_certificate(it)).err());
    let cluster = spec.cluster.iter().filter_map(|it| cluster::check_files(it).err());
    let cluster = cluster.map(|failure| failure.message().to_owned());
    let warnings = warnings.chain(group).chain(cluster).collect();
    let rings = Rings { flow_events: Rings::flow_events(spec.group.is_some()), ..Rings::IDLE };
    Ok(Checked { memory: Memory::of(spec.limits, rings, cpus), ports, warnings, in_force, spec })
}

/// `xlb detach` without a running daemon: removes what an earlier one left. `false`: there was nothing.
/// `socket`: where that one listened.
pub fn remove_remains(socket: &Path) -> Result<bool, Failure> {
    match datapath::detach(&paths::pins(), || hand_over(&TrackFile::beside(socket))) {
        Ok(removed) => Ok(!removed.is_empty()),
        Err(DetachError::Taken(in_use)) => {
            let hint = "run `xlb detach --socket PATH` with the socket of that xlb, or stop it first";
            Err(Failure::new(Exit::Conflict, in_use.to_string()).hint(hint))
        }
        Err(DetachError::Failed(error)) => Err(error.into()),
    }
}

/// The networks of this host.
pub fn networks() -> anyhow::Result<Vec<InterfaceAddress>> {
    host::networks()
}

/// Settings of an interface of this host. `None`: there is no such interface.
pub fn settings(interface: &str) -> anyhow::Result<Option<InterfaceSettings>> {
    host::settings(interface)
}

/// The configuration of keepalived. `None`: there is none.
pub fn keepalived() -> Result<Option<String>, String> {
    match limited_file::read(Path::new(paths::KEEPALIVED), MOST_OF_KEEPALIVED, Readers::Anyone) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", paths::KEEPALIVED)),
    }
}

/// Takes off what was announced. Other programs may follow the file, too, if there is one.
fn hand_over(track_file: &TrackFile) -> anyhow::Result<()> {
    let withdrawn = announced_addresses::take_all()?;
    let is_followed = track_file.path().exists() && track_file.read() != Some(UNFIT);
    if is_followed {
        let written = track_file.write(UNFIT);
        written.with_context(|| format!("cannot write the track file {}", track_file.path().display()))?;
    }
    if is_followed || withdrawn > 0 {
        std::thread::sleep(HANDOVER);
    }
    Ok(())
}

/// Runs the daemon until it ends.
pub fn run(options: Options) -> Result<(), Failure> {
    options.log.init();
    // Threads inherit this. So the programs of health checks lack the capabilities of a daemon that is not root.
    clear_ambient_capability_set().context("cannot clear the ambient capabilities")?;
    let runtime =
        runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(options));
    // A call that blocks, like one that waits for a file server, cannot be interrupted.
    runtime.shutdown_timeout(GRACE);
    outcome
}

async fn serve(options: Options) -> Result<(), Failure> {
    let since = Since { instant: Instant::now(), time: SystemTime::now() };
    let object = datapath::object().ok_or_else(|| Failure::new(Exit::HostUnfit, WITHOUT_PROGRAM))?;
    // If a backend's address has become one of this host since the file was checked, the other backends are still
    // served. A warning reports it.
    let host = BTreeSet::new();
    let (source, spec) = read(&options.config, &host, "`xlb run --config FILE`")?;
    let configuration = Configuration::of(&options.config, source, spec, &host, &paths::state())?;
    let overlay = configuration.overlay()?;
    let Configuration { spec, cluster } = configuration;
    let pins = paths::pins();
    let signals = signals::listen()?;
    let mut stopped = pin!(signals.stop);
    // This comes before anything that may fail for lack of capabilities, because its error names them.
    let limit = options.wait_interfaces.unwrap_or_default();
    let fit = tokio::select! {
        fit = boot::until_fit(limit, || datapath::judge(&spec, &pins), |missing| report_wait(limit, missing)) => fit,
        () = &mut stopped => return Ok(()),
    };
    let fit = fit.map_err(refusal)?;
    let store = Store::new(paths::state());
    let unusable = |error: KeyError| Failure::new(Exit::InvalidConfiguration, error.to_string());
    let files = spec.unusable_files();
    if !files.is_empty() {
        let failure = Failure::new(Exit::InvalidConfiguration, "files of health checks cannot be used");
        let is_copied = cluster.as_ref().is_some_and(|(_, copy)| copy.document.is_some());
        let failure = if is_copied { failure.hint(cluster::hint(&paths::state())) } else { failure };
        return Err(failure.details(files));
    }
    if let Some(group) = &spec.group {
        tls::check_files(group).map_err(|why| Failure::new(Exit::InvalidConfiguration, why))?;
        if let Err(why) = tls::check_certificate(group) {
            warn!("{why}");
        }
    }
    if let Some(cluster) = &spec.cluster {
        cluster::check_files(cluster)?;
    }
    let hash_key = spec.read_hash_key(store.directory()).map_err(unusable)?;
    let unreadable = |error: StoreError| Failure::new(Exit::Failed, error.to_string());
    let overlay = overlay.map_or_else(|| store.load().map_err(unreadable), Ok)?;

    let roles =
        role_store::load(store.directory()).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;

    let is_drained = drain_store::is_drained(store.directory())?;

    let not_bound = |error: listen::Error| Failure::new(error.exit(), error.to_string());
    let metrics = match spec.metrics {
        Some(address) => Some(Pending::bind(address, Part::Metrics, None).map_err(not_bound)?),
        None => None,
    };
    let listener = spec.group.as_ref().map(peers::bind).transpose().map_err(not_bound)?;
    // After the address is bound, because that creates its directory.
    let socket = options.socket.as_deref().unwrap_or(&spec.api.socket);
    let track_file = TrackFile::beside(socket);
    let socket = listen::socket(socket).await.map_err(not_bound)?;
    let opened = open(fit, object)?;

    let stop = CancellationToken::new();
    // No task outlives this function, however it ends.
    let _stops = stop.clone().drop_guard();
    let (events, mut inbox) = mpsc::channel(EVENTS);
    let (targets, watched_targets) = watch::channel(Vec::new());
    let (hops, watched_hops) = watch::channel(BTreeSet::new());
    let (interfaces, watched_interfaces) = watch::channel(opened.attached.clone());
    let (grace_periods, begun_grace_periods) = watch::channel(0);
    let (requests, neighbour_requests) = mpsc::channel(NEIGHBOUR_REQUESTS);
    let attached = watched_interfaces.clone();

    let mut tasks = JoinSet::new();
    tasks.spawn(health::run(watched_targets, events.clone(), stop.clone()));
    tasks.spawn(neighbours::run(
        watched_hops,
        watched_interfaces,
        neighbour_requests,
        events.clone(),
        stop.clone(),
    ));
    tasks.spawn(pins::watch(pins.clone(), opened.links.pin_names(), attached, events.clone(), stop.clone()));
    let wait = datapath::wait_for_grace_period;
    tasks.spawn(grace_periods::run(begun_grace_periods, wait, events.clone(), stop.clone()));
    tasks.spawn(datapath::forward_neighbour_requests(opened.neighbour_requests, requests, stop.clone()));
    if let Some(traces) = opened.traces {
        tasks.spawn(datapath::log_traces(traces, stop.clone()));
    }
    tasks.spawn(signals::reload_on_hangup(signals.hangup, events.clone(), stop.clone()));
    let group = match (&spec.group, opened.shared, listener) {
        (Some(group), Some(tables), Some(listener)) => {
            Some(group::join(group, tables, listener, &events, &stop, &mut tasks))
        }
        (Some(_) | None, Some(_) | None, Some(_) | None) => None,
    };
    let copy = cluster.as_ref().map(|(_, copy)| copy.clone());
    let cluster = match (&spec.cluster, cluster) {
        (Some(it), Some((source, _))) => Some(cluster::join(it, source, &events, &stop, &mut tasks)),
        (Some(_) | None, Some(_) | None) => None,
    };
    let controller_handle =
        ControllerHandle::new(events, |target| Box::pin(async move { health::probe_once(&target).await }));
    if let Some(metrics) = metrics {
        tasks.spawn(metrics::serve(metrics, controller_handle.clone(), stop.clone()));
    }
    tasks.spawn(server::serve_socket(socket, controller_handle, stop.clone().cancelled_owned()));

    let mut links = opened.links;
    let host = LocalHost {
        config: options.config.clone(),
        store,
        track_file,
        announce_device: spec.announce.as_ref().map(|it| it.device.clone()),
        interfaces: Box::new(move || links.refresh()),
        group,
        cluster,
    };
    let start = Start {
        config: options.config.clone(),
        spec: spec.with_hash_key(hash_key),
        overlay,
        copy,
        roles,
        is_drained,
        capacity: opened.capacity,
        warnings: opened.warnings,
        since,
    };
    let watched = controller::Watched { targets, hops, interfaces, grace_periods };
    let adopted =
        Controller::adopt(opened.datapath, host, watched, start, tokio::time::Instant::now().into_std());
    let mut controller = adopted?;
    let state = if opened.adopted { "the pinned data plane" } else { "a new data plane" };
    let state = format!("serving with {state}");
    info!("{state}");
    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&state)]);

    let ending = tokio::select! {
        ending = controller::run(&mut controller, &mut inbox, stopped) => Ok(ending),
        error = failed(&mut tasks) => Err(error),
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    let removes_data_plane = match &ending {
        Ok(Ending::Detach(_)) => true,
        Ok(Ending::Stopped) => options.detach_on_exit,
        Err(_) => false,
    };
    if removes_data_plane {
        leave(&mut controller, &mut inbox).await;
    }
    drop(controller);
    let ended = match ending {
        Ok(ending) => finish(ending, options.detach_on_exit),
        Err(error) => Err(Failure::new(Exit::Failed, format!("a task of the daemon failed: {error}"))),
    };
    stop.cancel();
    if timeout(GRACE, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        warn!("some tasks did not stop within {}", duration::show(GRACE));
    }
    ended
}

/// Waits until a task panics. Its part of the state would no longer be updated, so the daemon exits; traffic continues.
async fn failed(tasks: &mut JoinSet<()>) -> JoinError {
    loop {
        match tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => return error,
            None => std::future::pending().await,
        }
    }
}

/// No backend may have one of the addresses of the `host`. `choose`: how to name another file.
fn read(file: &Path, host: &BTreeSet<IpAddr>, choose: &str) -> Result<(Source, Spec), Failure> {
    if let Ok(false) = file.try_exists() {
        let mistakes = Mistakes::of_file(&file.display().to_string(), "no such file");
        let hint = format!("choose another file with {choose} or XLB_CONFIG");
        return Err(Failure::invalid(file, mistakes).hint(hint));
    }
    let invalid = |mistakes| Failure::invalid(file, mistakes);
    let source = spec::read_source(file).map_err(invalid)?;
    let spec = source.parse(host).map_err(invalid)?;
    Ok((source, spec))
}

fn refusal(error: OpenError) -> Failure {
    match error {
        OpenError::Unfit(causes) => {
            let causes = causes.iter().map(Cause::to_string).collect();
            Failure::new(Exit::HostUnfit, "this host cannot run xlb").details(causes)
        }
        OpenError::Taken(_) => Failure::new(Exit::Conflict, error.to_string()),
        OpenError::Failed(error) => error.into(),
    }
}

fn open(fit: Fit<'_>, object: &[u8]) -> Result<Opened, Failure> {
    let opened = datapath::open(fit, object).map_err(refusal)?;
    for attached in &opened.attached {
        info!(interface = attached.name, mode = attached.mode.name(); "attached");
    }
    info!("maps take {:.1} MiB", opened.capacity.map_memory_bytes as f64 / f64::from(1 << 20));
    for note in &opened.notes {
        warn!("{note}");
    }
    Ok(opened)
}

/// The controller has dropped the datapath. Decides what happens to the data plane.
fn finish(ending: Ending, detach_on_exit: bool) -> Result<(), Failure> {
    match ending {
        Ending::Stopped if detach_on_exit => Ok(detach(&paths::pins())?),
        Ending::Stopped => {
            info!("stopped; traffic keeps flowing (`xlb detach` removes the data plane)");
            Ok(())
        }
        Ending::Detach(reply) => {
            let outcome = detach(&paths::pins());
            let answer = match &outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(Problem::new(ProblemKind::Failed, format!("{error:#}"))),
            };
            reply.send(answer);
            Ok(outcome?)
        }
    }
}

fn detach(pins: &Path) -> anyhow::Result<()> {
    for line in datapath::detach(pins, || Ok(()))? {
        info!("{line}");
    }
    Ok(())
}

fn report_wait(limit: Duration, missing: &str) {
    let state = format!("waiting up to {} for the interfaces: {missing}", duration::show(limit));
    info!("{state}");
    notify(&[sd_notify::NotifyState::Status(&state)]);
}

/// Notifies systemd, if it started the daemon.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("cannot notify systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_ends_the_daemon_and_one_that_is_done_does_not() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        let waited = timeout(Duration::from_millis(10), failed(&mut tasks)).await;
        assert!(waited.is_err(), "the daemon goes on when its tasks are done");

        tasks.spawn(async { panic!("a bug") });

        assert!(failed(&mut tasks).await.is_panic());
    }
}
