//! `type = "exec"`: up if a program ends with exit code 0.
//!
//! Programs run only if the file allows it: see [`spec::exec`](crate::spec). Each runs in a process group of its own,
//! with a clean environment, and never longer than the timeout of its check.

pub(crate) mod output;
mod program;
mod turns;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::ExitStatus,
    time::Duration,
};

use lb_common::net::Protocol;
use nix::unistd::geteuid;
use tokio::{task::spawn_blocking, time::timeout};
use toml::de::DeValue;

use self::program::Program;
use super::{Answer, CheckType, Fault, Place, Verdict, fault::plain};
use crate::{
    document::{AnyKey, Key, Keys, table::kind, value},
    spec::BackendName,
    text::{counted, quote},
};

/// Besides the program itself.
const MAX_ARGUMENTS: usize = 32;
const MAX_ARGUMENT_BYTES: usize = 1024;

const COMMAND: Key<Vec<String>> = Key::new("command", command);

/// Runs a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The path of the program, and its arguments.
    command: Vec<String>,
    /// At most this many programs run at once, over all backends.
    most_at_once: u32,
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
    type Session = ExecSession;

    fn read(keys: &Keys<'_>) -> Self {
        if !keys.has(&COMMAND) {
            keys.refuse(&COMMAND, "type = \"exec\" needs the key `command`, like [\"/usr/local/bin/check\", \"-v\"]");
        }
        Self { command: keys.or(&COMMAND, Vec::new()), most_at_once: 1 }
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
        let named = |why: &str| format!("{program}: {why}");
        let metadata = fs::metadata(program).map_err(|error| named(&error.to_string()))?;
        let mode = metadata.permissions().mode();
        if !metadata.is_file() || mode & 0o111 == 0 {
            return Err(named("it is not an executable file"));
        }
        // It has the rights of this daemon.
        if can_others_change(metadata.uid(), mode, geteuid().as_raw()) {
            return Err(named("others can change this program: run `chown root: FILE` and `chmod go-w FILE`"));
        }
        Ok(())
    }

    /// The time limit counts twice: for the wait until the program may run, and for the program.
    async fn run(&self, session: &mut ExecSession, place: Place, limit: Duration) -> Verdict {
        let Ok(_turn) = timeout(limit, turns::take(self.most_at_once)).await else {
            let most = self.most_at_once;
            return Verdict::now(Err(Fault::local(format!(
                "{} ran all the time: raise `max` in [exec], or the intervals",
                counted(most.into(), "other program")
            ))));
        };
        Verdict::now(timeout(limit, self.run_program(session, place)).await.unwrap_or(Err(Fault::Silent)))
    }
}

impl Exec {
    /// `most`: how many programs may run at once.
    pub(crate) const fn set_most_at_once(&mut self, most: u32) {
        self.most_at_once = most;
    }

    /// Starting it may take time, too, if it is on a file server.
    async fn run_program(&self, about: &ExecSession, place: Place) -> Result<Answer, Fault> {
        let (command, environment) = (self.command.clone(), environment(about, place));
        let cannot_run = |error| Fault::local(format!("cannot run {}: {}", self.command.join(" "), plain(&error)));
        let starting = spawn_blocking(move || Program::start(&command, environment));
        let mut program = starting.await.map_err(Fault::local)?.map_err(cannot_run)?;
        let status = program.end().await.map_err(Fault::local)?;
        judge(status, &program.first_line())
    }
}

/// Others than root and this user.
const fn can_others_change(owner: u32, mode: u32, user: u32) -> bool {
    let is_ours = owner == 0 || owner == user;
    !is_ours || mode & 0o022 != 0
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
fn command(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let example = "expected the path of a program and its arguments, like [\"/usr/local/bin/check\", \"-v\"]";
    let words = value.as_array().ok_or_else(|| format!("{example}, found {}", kind(value)))?;
    let words: Vec<String> = words.iter().map(|word| argument(word.get_ref())).collect::<Result<_, _>>()?;
    let program = words.first().ok_or_else(|| example.to_owned())?;
    if !program.starts_with('/') {
        return Err(format!("{} is not an absolute path", quote(program)));
    }
    if words.len() - 1 > MAX_ARGUMENTS {
        return Err(format!("{} arguments are too many: at most {MAX_ARGUMENTS}", words.len() - 1));
    }
    Ok(words)
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
