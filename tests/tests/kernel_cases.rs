//! Every row in the kernel, by `BPF_PROG_TEST_RUN`, beside the host engine: both must do the same to the bit.

use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use tests::{
    case::{self, Case},
    host::HostEngine,
    kernel::KernelEngine,
    model, rows,
};

/// Runs all rows in both engines and tells of each that fails.
fn agree(rows: fn() -> Vec<Case>) -> Result<()> {
    // A thread of its own: it moves into a namespace.
    let run = thread::spawn(move || -> Result<Vec<String>> {
        let (mut host, mut kernel) = (HostEngine::default(), KernelEngine::new()?);
        let failed = |row: &Case| compare(row, &mut host, &mut kernel).err();
        Ok(rows().iter().filter_map(failed).map(|error| format!("{error:#}")).collect())
    });
    let failures = run.join().map_err(|_| anyhow!("the thread panicked"))??;

    ensure!(failures.is_empty(), "{} rows:\n\n{}", failures.len(), failures.join("\n\n"));
    Ok(())
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
    agree(model::rows)
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
