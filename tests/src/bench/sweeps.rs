//! Backends that are removed while the table holds millions of flows: how long a scrape and a removal take.
//!
//! The flows are copies of one real record, written into the pinned table.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map};
use lb_common::{
    backend::{Backend, BackendId},
    flow::{Bucket, Control, Owner, Record4},
    net::Protocol,
    service::Mode,
};

use super::{
    object::Mapped,
    report::{Goal, Table, median},
    scale::{milliseconds, pinned},
};
use crate::lab::{
    Config, Daemon, Family, Lab, Shape, Topology,
    config::{Check, Limits, Service},
    eventually, wait,
};

const FLOWS: u32 = 4_194_304;
/// Number of backends. All have equally many flows. One stays.
const BACKENDS: u16 = 26;
/// Flows in each bucket: the table has room for twice as many.
const WAYS: usize = 4;
const PORT: u16 = 7;
/// The time from one removal to the next.
const STEP: Duration = Duration::from_millis(200);
/// Time limit until the flows of removed backends are free.
const LIMIT: Duration = Duration::from_secs(120);

/// Goals in milliseconds, for the median of scrapes and of removals: neither waits for a sweep.
const GOAL_MEDIAN: f64 = 100.0;
/// Goal for the longest scrape, which waits for a count of all flows: one walk over the tables.
const GOAL_LONGEST_SCRAPE: f64 = 1_000.0;
/// Goal for the time until the flows of all removed backends are free: a full round for the last one.
const GOAL_FREED: f64 = 2_000.0;

/// Measures this many scrapes at rest, then scrapes while backends are removed.
pub fn measure(rounds: usize) -> Result<Vec<Table>> {
    eprintln!("bench: sweeps, {FLOWS} flows");
    let lab = Lab::build(&Topology::new("sweeps", Shape::TwoNics).backends(1))?;
    let _echo = lab.tcp_echoes(PORT)?;
    let daemon = lab.start(&config(&lab, 1))?;
    daemon.wait_until_all_are_up()?;
    let live = lab.live(Family::V4, PORT, 1)?;
    daemon.write(&config(&lab, BACKENDS))?;
    daemon.run(&["reload"])?;

    let records: Mapped<Bucket<Record4>> = Mapped::new(&pinned(&lab, "FLOWS4")?)?;
    let filled = fill(&records, &backend_ids(&lab)?)?;
    live.finish_unbroken()?;

    let mut table = Table::new(format!("milliseconds, {FLOWS} flows"), &["median", "most"], 1);
    let add = |table: &mut Table, what: &str, times: &[f64]| {
        table.row(what, [median(times), times.iter().copied().fold(0.0, f64::max)].map(Some));
    };
    let at_rest = (0..rounds).map(|_| scrape(&daemon)).collect::<Result<Vec<_>>>()?;
    add(&mut table, "a scrape, while nothing changes", &at_rest);
    table.goal("median", Goal::AtMost(GOAL_MEDIAN));

    let is_over = AtomicBool::new(false);
    let (removals, scrapes, freed) = thread::scope(|scope| -> Result<_> {
        let scraper = scope.spawn(|| {
            let going = std::iter::from_fn(|| (!is_over.load(Ordering::Relaxed)).then(|| scrape(&daemon)));
            going.collect::<Result<Vec<_>>>()
        });
        let removed = remove(&daemon);
        let begun = Instant::now();
        let left = || Ok(used(&records) <= filled.div_ceil(usize::from(BACKENDS)) + 1);
        let freed =
            eventually(LIMIT, "the flows of removed backends are free", left).map(|_| milliseconds(begun));
        is_over.store(true, Ordering::Relaxed);
        Ok((removed?, wait::join(scraper)?, freed?))
    })?;
    add(&mut table, "a scrape, while five backends a second are removed", &scrapes);
    table.goal("median", Goal::AtMost(GOAL_MEDIAN));
    table.goal("most", Goal::AtMost(GOAL_LONGEST_SCRAPE));
    add(&mut table, "xlb backend remove, five a second", &removals);
    table.goal("median", Goal::AtMost(GOAL_MEDIAN));
    add(&mut table, "from the last removal until all their flows are free", &[freed]);
    table.goal("median", Goal::AtMost(GOAL_FREED));
    daemon.run(&["backend", "list"])?;
    Ok(vec![table])
}

/// One service, whose backends differ by port.
fn config(lab: &Lab, backends: u16) -> Config {
    let mut service = Service::over(lab, "echo", Protocol::Tcp, Mode::FullNat, PORT, PORT).only(Family::V4);
    service.health.check = Check::None;
    let first = service.backends[0].clone();
    for number in 1..backends {
        let mut backend = first.clone();
        backend.name = format!("web-1-{number}");
        backend.address.set_port(PORT + number);
        service.backends.push(backend);
    }
    let mut config = Config::new(lab).service(service);
    config.limits = Limits::of_flows(FLOWS, 1024, 65_536);
    config
}

fn backend_ids(lab: &Lab) -> Result<Vec<BackendId>> {
    let backends = Array::<_, Backend>::try_from(Map::Array(pinned(lab, "BACKENDS")?))?;
    let all = backends.iter().collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<_> = all.iter().filter(|backend| backend.accepts == 1).map(|backend| backend.id).collect();
    ensure!(ids.len() == usize::from(BACKENDS), "{} backends serve", ids.len());
    Ok(ids)
}

/// Copies the established record to [`WAYS`] ways of each bucket, with the backends in turn; how many are then in use.
fn fill(records: &[Bucket<Record4>], ids: &[BackendId]) -> Result<usize> {
    let all = records.iter().flat_map(|bucket| &bucket.way);
    let is_established = |record: &&Record4| Control(record.control.load()).state().is_established();
    let one = all.clone().find(is_established).context("the connection has no record")?;
    let mut owners = ids.iter().cycle();
    for bucket in records {
        for record in bucket.way.iter().filter(|record| record.control.load() == 0).take(WAYS) {
            let owner = one.owner.get();
            let id = owners.next().copied().unwrap_or_default();
            let mode = owner.mode().context("a record without a mode")?;
            record.client.set(one.client.get());
            record.listen.set(one.listen.get());
            record.request_ports.set(one.request_ports.get());
            record.owner.set(Owner::new(id, mode, owner.protocol()));
            record.reply_ports.set(one.reply_ports.get());
            record.last_seen.store(one.last_seen.load());
            record.proof.store(one.proof.load());
            record.backend.set(one.backend.get());
            record.source.set(one.source.get());
            record.control.store(one.control.load());
        }
    }
    let filled = used(records);
    ensure!(filled >= FLOWS as usize, "{filled} records are in use");
    Ok(filled)
}

/// Records in use.
fn used(records: &[Bucket<Record4>]) -> usize {
    let states =
        records.iter().flat_map(|bucket| &bucket.way).map(|record| Control(record.control.load()).state());
    states.filter(|state| state.is_established()).count()
}

/// Removes all backends but the first, five a second; milliseconds of each.
fn remove(daemon: &Daemon) -> Result<Vec<f64>> {
    let begun = Instant::now();
    let remove = |number: u16| {
        thread::sleep((STEP * u32::from(number)).saturating_sub(begun.elapsed()));
        let begun = Instant::now();
        daemon.run(&["backend", "remove", &format!("echo/web-1-{number}")])?;
        Ok(milliseconds(begun))
    };
    (1..BACKENDS).map(remove).collect()
}

/// Milliseconds, the process included.
fn scrape(daemon: &Daemon) -> Result<f64> {
    let begun = Instant::now();
    daemon.metrics()?;
    Ok(milliseconds(begun))
}
