//! A server that dies and comes back again and again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_common::service::Mode;
use tests::lab::{Web, eventually, wait};

use super::{BACK, Servers, judge, summary, was_retried};

const CYCLES: usize = 5;
/// Shorter than three health checks, so that the server never counts as down.
const HALF_CYCLE: Duration = Duration::from_secs(1);
const NAMES: [&str; 3] = ["web-1", "web-2", "web-3"];

#[test]
fn a_server_that_flaps_costs_no_connection_and_gets_its_share_again() -> Result<()> {
    let mut servers = Servers::start("flap", Mode::FullNat)?;
    let mut victim = servers.web.remove(1);
    let is_over = AtomicBool::new(false);

    let (connections, kills) = thread::scope(|scope| -> Result<_> {
        let rushing = scope.spawn(|| servers.rush(|| !is_over.load(Ordering::Relaxed)));
        let kills = (0..CYCLES).map(|_| flap(&mut victim)).collect::<Result<Vec<_>>>();
        is_over.store(true, Ordering::Relaxed);
        Ok((wait::join(rushing)?, kills?))
    })?;

    println!("{}", summary(&connections));
    judge(&connections, &kills)?;
    let retried = connections.iter().filter(|it| was_retried(it)).count();
    ensure!(retried >= CYCLES, "{retried} connections were retried: the server was not missed");
    eventually(BACK, "no server is ejected", || Ok(servers.sum("xlb_backend_ejected")? == 0.0))?;
    shares_are_even(&servers)
}

/// Kills a server and starts it again. Returns when it was killed.
fn flap(victim: &mut Web) -> Result<Instant> {
    thread::sleep(HALF_CYCLE);
    victim.kill()?;
    let killed = Instant::now();
    thread::sleep(HALF_CYCLE);
    victim.start_again()?;
    Ok(killed)
}

fn shares_are_even(servers: &Servers) -> Result<()> {
    let start = Instant::now();
    let connections = servers.rush(|| start.elapsed() < Duration::from_secs(1))?;
    let share = |name| connections.iter().filter(|it| it.answer.as_deref() == Some(name)).count();
    let shares = NAMES.map(share);
    println!("shares {shares:?} of {}", connections.len());
    // The pool has one turn for all connections, which may overtake each other.
    let even = connections.len() / NAMES.len();
    ensure!(shares.iter().all(|share| share.abs_diff(even) <= 2), "{shares:?} of {}", connections.len());
    Ok(())
}
