//! A running program, and the processes that it has started.
//!
//! They are one process group, which ends with the program. The group is signalled only while the program is a child that
//! has not been reaped: until then, no other process can have its number.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
};

use super::output::Output;
use crate::limit::Turn;

/// See the [module](self). Dropping this ends it.
pub struct Program {
    /// `None`: it has been reaped.
    running: Option<Running>,
    output: Output,
}

struct Running {
    child: Child,
    /// Readable when the program has ended.
    ended: AsyncFd<OwnedFd>,
    /// Until it has been reaped.
    _turn: Turn<'static>,
}

impl Program {
    /// `command`: the path and the arguments.
    pub fn start(
        command: &[String],
        environment: impl IntoIterator<Item = (&'static str, String)>,
        turn: Turn<'static>,
    ) -> io::Result<Self> {
        let (path, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (reader, writer) = io::pipe()?;
        let output = Output::new(reader.into())?;
        let mut command = Command::new(path);
        command
            .args(arguments)
            .env_clear()
            .envs(environment)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let mut child = command.spawn()?;
        match watch(Pid::from_child(&child)) {
            Ok(ended) => Ok(Self { running: Some(Running { child, ended, _turn: turn }), output }),
            Err(error) => {
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Waits for the program's end, ends what it has left behind, and returns how it ended.
    pub async fn end(&mut self) -> io::Result<ExitStatus> {
        let Some(running) = &mut self.running else { return Err(io::ErrorKind::NotFound.into()) };
        tokio::select! {
            ended = running.ended.readable() => drop(ended?),
            () = self.output.read_on() => {}
        }
        running.kill_group();
        let status = running.child.wait()?;
        self.running = None;
        self.output.read_rest();
        Ok(status)
    }

    /// The first line that it has printed.
    pub fn first_line(&self) -> String {
        self.output.first_line()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.kill_group();
        // A process that is killed ends when the kernel lets it: one that waits for a disk or a file server, later.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(running.reap());
        }
    }
}

impl Running {
    /// Waits for its end, and only then gives the turn back.
    async fn reap(mut self) {
        if self.ended.readable().await.is_ok() {
            let _ = self.child.wait();
        }
    }

    fn kill_group(&self) {
        // It cannot fail as long as the child is not reaped: the group has at least this member.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }
}

/// Readable when the process has ended.
#[expect(deprecated, reason = "the file stays open because it is owned; the function that replaces this one is unsafe")]
pub(super) fn watch(process: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd_open(process, PidfdFlags::NONBLOCK)?, Interest::READABLE)
}
