//! What the kernel says of a process.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// User and system time of a process.
pub fn cpu_time_of(process: Pid) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The second field is the name in brackets, which may contain spaces.
    let (_, fields) = stat.rsplit_once(") ").with_context(|| format!("{path} has no name"))?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the kernel has no clock ticks")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}
