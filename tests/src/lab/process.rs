//! Processes of servers, and what the kernel says of them.

use std::{fs, process::Child, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::wait::eventually;

/// A program that was asked to end has ended within this time.
const END: Duration = Duration::from_secs(10);

/// A program that was started, until it is killed. Dropping it kills it.
#[derive(Debug, Default)]
pub struct Program(Option<Child>);

impl From<Child> for Program {
    fn from(child: Child) -> Self {
        Self(Some(child))
    }
}

impl Program {
    /// Kills it at once.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.0.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Waits until it has ended, for whatever reason.
    pub fn wait(&mut self) -> Result<()> {
        if let Some(process) = &mut self.0 {
            eventually(END, "the program ends", || Ok(process.try_wait()?.is_some()))?;
        }
        self.0.take();
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> Result<Pid> {
        let process = self.0.as_ref().context("the program was killed")?;
        Ok(Pid::from_raw(process.id().cast_signed()))
    }

    /// Lets it outlive this process.
    pub fn leave_running(mut self) {
        self.0.take();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A failure cannot be returned; the lab kills what is left in its namespaces.
        let _ = self.kill();
    }
}

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

/// The most memory, in bytes, that a process has had at once since the last [`forget_peak_memory_of`].
pub fn peak_memory_of(process: Pid) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    Ok(peak.with_context(|| format!("{path} has no VmHWM"))?.trim().parse::<u64>()? * 1024)
}

/// Lets [`peak_memory_of`] begin again with what the process has.
pub fn forget_peak_memory_of(process: Pid) -> Result<()> {
    let path = format!("/proc/{process}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("write to {path}"))
}
