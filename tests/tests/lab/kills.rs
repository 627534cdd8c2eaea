//! When the daemon is killed at any moment, no packet misses its slow path.
//!
//! Datagrams on new flows take that of a new flow. Each start raises the routing generation, so the next reply of each known
//! flow takes that of a refreshed next hop.

use std::{thread, time::Instant};

use anyhow::Result;
use lb_common::service::Mode;
use tests::lab::{Config, Daemon, Lab, Shape, Topology, eventually, wait::SOON};

use crate::datagrams;

/// Kills right after a start, when the program on the interfaces has been replaced; and the same number during a start,
/// each at a later moment.
const KILLS: u32 = 100;

#[test]
fn two_hundred_kills_at_any_moment_lose_no_packet_and_miss_no_slow_path() -> Result<()> {
    // Three backends: one has too few source ports for all flows.
    let lab = Lab::build(&Topology::new("kills", Shape::TwoNics))?;
    let _echoes = lab.udp_echoes(datagrams::BACKEND)?;
    let mut xlb = lab.start(
        &Config::new(&lab).limits(datagrams::LIMITS).service(datagrams::service(&lab, Mode::FullNat)),
    )?;
    xlb.wait_until_all_are_up()?;

    let exchanges = datagrams::during(&lab, || kill_again_and_again(&mut xlb))?;
    xlb.start_again()?;

    datagrams::none_is_lost(&xlb, &exchanges)?;
    eventually(SOON, "the slow paths of killed daemons are removed", || Ok(slow_paths(&lab)? == 1))?;
    Ok(())
}

fn kill_again_and_again(xlb: &mut Daemon) -> Result<()> {
    xlb.kill()?;
    let start = Instant::now();
    xlb.start_again()?;
    let start_takes = start.elapsed();
    xlb.kill()?;

    for kill in 1..=KILLS {
        xlb.launch()?;
        // No event marks the moment: any moment of a start is meant.
        thread::sleep(start_takes * kill / KILLS);
        xlb.kill()?;
        xlb.start_again()?;
        xlb.kill()?;
    }
    println!("a start took {start_takes:?}, and 2 * {KILLS} kills {:?}", start.elapsed());
    Ok(())
}

/// How many arrays of slow paths are pinned.
fn slow_paths(lab: &Lab) -> Result<usize> {
    Ok(lab.pin_names()?.iter().filter(|name| name.starts_with("slow_paths_")).count())
}
