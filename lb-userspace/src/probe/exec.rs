//! `type = "exec"`: up if a program ends with exit code 0.
//!
//! Programs run only if the file allows it: see [`spec::exec`](crate::spec). Each runs in a process group of its own, with a
//! clean environment, and is killed after the timeout of its check. It has its turn until it has ended, which may be later.

pub(crate) mod output;
mod program;

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, process::ExitStatus, time::Duration};

use lb_common::net::Protocol;
use nix::unistd::geteuid;
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};
use toml::{Spanned, de::DeValue};

use self::program::Program;
use super::{Answer, CheckType, Fault, Place, Verdict, fault::plain};
use crate::{
    document::{
        AnyKey, Key, Keys,
        parts::{self, Wrong},
        table::kind,
        value,
    },
    duration,
    limit::{Limit, Turn},
    ownership,
    spec::{BackendName, exec::DEFAULT_MOST},
    text::{counted, quote},
};

/// Besides the program itself.
const MAX_ARGUMENTS: usize = 32;
const MAX_ARGUMENT_BYTES: usize = 1024;

const COMMAND: Key<Vec<String>> = Key::of_parts("command", command);

/// The programs that run at once, over all backends. It is not part of a probe: a change of the limit leaves checks as they
/// are.
pub(crate) static PROGRAMS: Limit = Limit::new("programs of health checks", DEFAULT_MOST);

/// Runs a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The path of the program, and its arguments.
    command: Vec<String>,
}

/// Whom a program is asked about. It is in the program's environment.
#[derive(Default)]
pub struct ExecSession {
    service: String,
    backend: String,
}

impl CheckType for Exec {
    const NAME: &'static str = "exec";
    const KEYS: &'static [&'static dyn AnyKey] = &[&COMMAND];
    const KNOWS_NAMES: bool = true;
    const HAS_OWN_LIMIT: bool = true;
    type Session = ExecSession;

    fn read(keys: &Keys<'_>) -> Self {
        if !keys.has(&COMMAND) {
            keys.refuse(&COMMAND, "type = \"exec\" needs the key `command`, like [\"/usr/local/bin/check\", \"-v\"]");
        }
        Self { command: keys.or(&COMMAND, Vec::new()) }
    }

    fn session(&self, backend: &BackendName) -> ExecSession {
        ExecSession { service: backend.service.clone(), backend: backend.backend.clone() }
    }

    /// A program may ask over any.
    fn over(&self) -> Option<Protocol> {
        None
    }

    fn check_files(&self) -> Result<(), String> {
        let Some(program) = self.command.first() else { return Ok(()) };
        let named = |why: &str| format!("{}: {why}", quote(program));
        let metadata = fs::metadata(program).map_err(|error| named(&plain(&error)))?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Err(named("it is not an executable file"));
        }
        is_ours(program).map_err(|error| named(&plain(&error)))
    }

    async fn run(&self, session: &mut ExecSession, place: Place, limit: Duration) -> Verdict {
        Verdict::now(self.run_in_turn(&PROGRAMS, session, place, limit).await)
    }
}

impl Exec {
    /// The time limit counts twice: for the wait until the program may run, and for the program.
    async fn run_in_turn(
        &self,
        programs: &'static Limit,
        about: &ExecSession,
        place: Place,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let Ok(turn) = timeout(limit, programs.take()).await else {
            return Err(Fault::local(format!(
                "{} ran all the time: raise `max` in [exec], or the intervals",
                counted(programs.most().into(), "other program")
            )));
        };
        let deadline = Instant::now() + limit;
        let Ok(started) = timeout_at(deadline, self.start(about, place, turn)).await else {
            let limit = duration::show(limit);
            return Err(Fault::local(format!("{} did not start within {limit}", self.name())));
        };
        let mut program = started?;
        let Ok(status) = timeout_at(deadline, program.end()).await else { return Err(Fault::Silent) };
        judge(status.map_err(Fault::local)?, &program.first_line())
    }

    /// This may take time if the program is on a file server. It is not started if this future has been dropped before.
    async fn start(&self, about: &ExecSession, place: Place, turn: Turn<'static>) -> Result<Program, Fault> {
        let (command, environment) = (self.command.clone(), environment(about, place));
        let (check, _check_goes_on) = oneshot::channel::<()>();
        let starting = spawn_blocking(move || {
            if check.is_closed() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            command.first().map_or(Ok(()), |program| is_ours(program))?;
            Program::start(&command, environment, turn)
        });
        let started = starting.await.map_err(Fault::local)?;
        started.map_err(|error| Fault::local(format!("cannot run {}: {}", self.name(), plain(&error))))
    }

    /// Without the arguments, which may be secret.
    fn name(&self) -> String {
        quote(self.command.first().map_or("", String::as_str))
    }
}

/// The program has the rights of this daemon. So only root and the daemon's user may be able to change or replace it.
fn is_ours(program: &str) -> io::Result<()> {
    ownership::check(Path::new(program), geteuid().as_raw())
}

fn judge(status: ExitStatus, line: &str) -> Result<Answer, Fault> {
    use std::os::unix::process::ExitStatusExt as _;
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    };
    let text = if line.is_empty() { how } else { format!("{how}: {line}") };
    if status.success() { Ok(text.into()) } else { Err(Fault::Failed(text)) }
}

/// The names of HAProxy's external check that have a meaning here, and our own.
fn environment(about: &ExecSession, place: Place) -> Vec<(&'static str, String)> {
    let (address, port) = (place.address.ip().to_string(), place.address.port().to_string());
    vec![
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("XLB_SERVICE", about.service.clone()),
        ("XLB_BACKEND", about.backend.clone()),
        ("XLB_ADDRESS", address.clone()),
        ("XLB_PORT", port.clone()),
        ("HAPROXY_PROXY_NAME", about.service.clone()),
        // Empty, as those of a `backend` section are.
        ("HAPROXY_PROXY_ADDR", String::new()),
        ("HAPROXY_PROXY_PORT", String::new()),
        ("HAPROXY_SERVER_NAME", about.backend.clone()),
        ("HAPROXY_SERVER_ADDR", address),
        ("HAPROXY_SERVER_PORT", port),
    ]
}

/// `["/usr/local/bin/check", "-v"]`
fn command(value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, Wrong> {
    let refuse = |message: String| Err(vec![parts::at(value, message)]);
    let example = "expected the path of a program and its arguments, like [\"/usr/local/bin/check\", \"-v\"]";
    let Some(words) = value.get_ref().as_array() else {
        return refuse(format!("{example}, found {}", kind(value.get_ref())));
    };
    let Some((path, arguments)) = words.split_first() else { return refuse(example.to_owned()) };
    if arguments.len() > MAX_ARGUMENTS {
        return refuse(format!("{} arguments are too many: at most {MAX_ARGUMENTS}", arguments.len()));
    }
    let arguments = arguments.iter().map(|word| parts::read(word, argument));
    parts::all([parts::read(path, program)].into_iter().chain(arguments))
}

fn program(value: &DeValue<'_>) -> Result<String, String> {
    let path = argument(value)?;
    if path.starts_with('/') { Ok(path) } else { Err(format!("{} is not an absolute path", quote(&path))) }
}

fn argument(value: &DeValue<'_>) -> Result<String, String> {
    let word = value::text(value)?;
    if word.len() > MAX_ARGUMENT_BYTES {
        return Err(format!("an argument of {} bytes is too long: at most {MAX_ARGUMENT_BYTES}", word.len()));
    }
    if word.contains('\0') {
        return Err(format!("{} contains a zero byte", quote(word)));
    }
    Ok(word.to_owned())
}

#[cfg(test)]
mod tests;
