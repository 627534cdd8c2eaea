//! Every row in the kernel, by `BPF_PROG_TEST_RUN`, and in the host engine: results must be identical.

use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use lb_common::{counters::ActionCounters, reason::Reason};
use lb_ebpf::path::slow::SlowPath;
use nix::sched::sched_getcpu;
use tests::{
    bench::wrapper::stay_on,
    case::{self, Case},
    dialogue::Dialogue,
    engine::{Action, Engine as _},
    host::HostEngine,
    kernel::KernelEngine,
    model::{self, Pool},
    rows,
    world::{Kind, World, network},
};

/// Runs all rows in both engines and reports each that fails.
fn agree(rows: impl FnOnce() -> Vec<Case> + Send + 'static) -> Result<()> {
    let failures: Vec<String> = in_a_thread(move || {
        let (mut host, mut kernel) = (HostEngine::default(), KernelEngine::new()?);
        let failed = |row: &Case| compare(row, &mut host, &mut kernel).err();
        Ok(rows().iter().filter_map(failed).map(|error| format!("{error:#}")).collect())
    })?;

    ensure!(failures.is_empty(), "{} rows:\n\n{}", failures.len(), failures.join("\n\n"));
    Ok(())
}

/// A thread of its own, because it moves into a namespace. It stays on one CPU: another one would not see this one's
/// difference of half-open flows.
fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let on_one_cpu = || {
        stay_on(sched_getcpu()?)?;
        work()
    };
    thread::spawn(on_one_cpu).join().map_err(|_| anyhow!("the thread panicked"))?
}

fn compare(row: &Case, host: &mut HostEngine, kernel: &mut KernelEngine) -> Result<()> {
    let (on_host, in_kernel) = (case::run(row, host)?, case::run(row, kernel).context("in the kernel")?);
    for (step, (host, kernel)) in on_host.into_iter().zip(in_kernel).enumerate() {
        ensure!(host == kernel, "{}: packet {}\nhost {host:#?}\nkernel {kernel:#?}", row.name, step + 1);
    }
    Ok(())
}

#[test]
fn random_acts() -> Result<()> {
    agree(|| model::rows(Kind::tcp().into_iter().chain(Kind::udp()), Pool::PLAIN))
}

#[test]
fn random_acts_with_backends_that_fail() -> Result<()> {
    let pools = [Pool::RETRYING, Pool::EJECTING, Pool::LIMITED];
    pools.into_iter().try_for_each(|pool| agree(move || model::rows(Kind::tcp(), pool)))
}

#[test]
fn random_acts_with_pickers_that_compare_or_hash() -> Result<()> {
    let pools = [Pool::LEAST, Pool::TWO, Pool::HASHED];
    pools.into_iter().try_for_each(|pool| agree(move || model::rows(Kind::tcp(), pool)))
}

#[test]
fn what_cannot_be_redirected_is_dropped_and_counted() -> Result<()> {
    in_a_thread(|| {
        let mut engine = KernelEngine::new()?;
        let kind = Kind::tcp()[0];
        let one = Dialogue::new(kind);
        let syn = one.syn().packet.with(|packet| packet.to_mac = network::mac_of_interface(network::FRONT));
        engine.reset(&World::new(kind))?;
        engine.lose_device(network::BACK)?;

        let outcome = engine.run(network::FRONT, &syn.to_frame())?;

        let counters = engine.counters()?;
        let refused = counters.reasons[Reason::RedirectFailed as usize];
        assert_eq!(outcome.action, Action::Drop);
        assert_eq!((refused.packets, refused.bytes), (1, syn.to_frame().len() as u64));
        assert_eq!(counters.reasons.iter().map(|tally| tally.packets).sum::<u64>(), 1);
        assert_eq!(counters.actions[0], ActionCounters { dropped: 1, ..ActionCounters::default() });
        Ok(())
    })
}

#[test]
fn a_packet_whose_slow_path_is_missing_is_dropped_and_counted_as_internal() -> Result<()> {
    in_a_thread(|| {
        let mut engine = KernelEngine::new()?;
        let families = Kind::tcp()
            .into_iter()
            .zip([[SlowPath::NewFlow4, SlowPath::Expire4], [SlowPath::NewFlow6, SlowPath::Expire6]]);
        for (kind, path) in families.flat_map(|(kind, paths)| paths.map(|path| (kind, path))) {
            let syn = Dialogue::new(kind).syn().packet;
            let syn = syn.with(|packet| packet.to_mac = network::mac_of_interface(network::FRONT));
            engine.reset(&World::new(kind))?;
            engine.lose_slow_path(path)?;

            let outcome = engine.run(network::FRONT, &syn.to_frame())?;

            let counters = engine.counters()?;
            let all: u64 = counters.reasons.iter().map(|tally| tally.packets).sum();
            let internal = counters.reasons[Reason::Internal as usize].packets;
            assert_eq!((outcome.action, internal, all), (Action::Drop, 1, 1), "{kind}, {path:?}");
        }
        Ok(())
    })
}

macro_rules! themes {
    ($($theme:ident),*) => {
        $(
            #[test]
            fn $theme() -> Result<()> {
                agree(rows::$theme::rows)
            }
        )*
    };
}

tests::for_all_themes!(themes);
