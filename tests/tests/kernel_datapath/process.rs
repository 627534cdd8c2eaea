//! Another process that opens a data plane, to be killed with `kill -9`.
//!
//! It is this test binary, started again with one test, which calls [`open_if_started`] first. It also ends when the process
//! that started it does: then its stdin is closed.

use std::{
    env, io,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_userspace::spec::AttachMode;
use nix::sys::signal::Signal;

use crate::world::{World, open};

const PINS: &str = "XLB_TEST_PINS";
const INTERFACES: &str = "XLB_TEST_INTERFACES";
/// Printed when the data plane is open.
const OPEN: &str = "open";

/// In a process that [`Process::start`] has started, opens the data plane and waits for the kill.
pub fn open_if_started() -> Result<()> {
    let (Some(pins), Ok(interfaces)) = (env::var_os(PINS), env::var(INTERFACES)) else { return Ok(()) };
    let interfaces: Vec<_> = interfaces.split(',').collect();
    let _opened = open(&World::spec(&interfaces, AttachMode::Native), Path::new(&pins))?;
    println!("{OPEN}");
    io::stdin().read_to_end(&mut Vec::new())?;
    bail!("the process that started this one has ended")
}

pub struct Process(Child);

impl Process {
    /// Starts `test` in another process, which opens the data plane of the world.
    pub fn start(test: &str, world: &World, interfaces: &[&str]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--exact", test, "--nocapture"]);
        command.env(PINS, world.pins()).env(INTERFACES, interfaces.join(","));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(command.spawn().context("cannot start this test again")?))
    }

    /// Starts it, waits until the data plane is open, and kills it. Returns how long opening took.
    pub fn time(test: &str, world: &World, interfaces: &[&str]) -> Result<Duration> {
        let (start, mut process) = (Instant::now(), Self::start(test, world, interfaces)?);
        let output = BufReader::new(process.0.stdout.take().context("its output is not captured")?);
        let is_open = output.lines().any(|line| line.is_ok_and(|line| line.ends_with(OPEN)));
        ensure!(is_open, "the process ended: {}", process.0.wait()?);
        let takes = start.elapsed();
        process.kill()?;
        Ok(takes)
    }

    /// `kill -9`. It is an error if the process has ended before: it could not open what it found.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        let status = self.0.wait()?;
        ensure!(status.signal() == Some(Signal::SIGKILL as i32), "the process ended by itself: {status}");
        Ok(())
    }
}
