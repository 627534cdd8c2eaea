//! The real daemon in its namespace, and its CLI.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    Config, Namespace,
    command::{self, Output},
    metrics::Metrics,
    sweep,
    wait::eventually,
};

/// Time limit from start to the first answer, on a busy machine.
const START: Duration = Duration::from_secs(20);
/// Time limit from a signal to the end of the process.
const STOP: Duration = Duration::from_secs(10);
const LOG: &str = "xlb.log";

/// The daemon. Dropping it kills it; the pinned programs keep forwarding until the lab is removed.
pub struct Daemon {
    namespace: Namespace,
    directory: PathBuf,
    log_filter: Option<String>,
    /// The build that runs instead of the one under test.
    build: Option<PathBuf>,
    process: Option<Child>,
}

impl Daemon {
    pub(super) fn start(namespace: &Namespace, directory: &Path, config: &Config) -> Result<Self> {
        let mut daemon = Self {
            namespace: namespace.clone(),
            directory: directory.to_owned(),
            log_filter: None,
            build: None,
            process: None,
        };
        daemon.write(config)?;
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Replaces the configuration file; the daemon has not read it yet.
    pub fn write(&self, config: &Config) -> Result<()> {
        Ok(fs::write(self.config_path(), config.to_string())?)
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        config_path(&self.directory)
    }

    /// Starts it after [`Self::kill`] or [`Self::stop`]; returns when it answers.
    pub fn start_again(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_until_it_answers()
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(log_path(&self.directory))?;
        let mut command = self.namespace.command(self.build.clone().map_or_else(binary, Ok)?);
        command.arg("run").envs(environment(&self.directory)).stdin(Stdio::null());
        command.envs(self.log_filter.iter().map(|filter| ("XLB_LOG", filter)));
        self.process = Some(command.stdout(log.try_clone()?).stderr(log).spawn().context("start xlb")?);
        Ok(())
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let answers = eventually(START, "xlb answers", || {
            let process = self.process.as_mut().context("xlb is not running")?;
            if let Some(status) = process.try_wait()? {
                bail!("xlb ended: {status}");
            }
            Ok(self.output(&["status"])?.code == 0)
        });
        answers.map(drop).map_err(|error| self.explain(&error))
    }

    /// The same with another build, which also later starts use.
    pub fn start_again_as(&mut self, build: &Path) -> Result<()> {
        self.build = Some(build.to_owned());
        self.start_again()
    }

    /// The same with a filter for its log (`XLB_LOG`).
    pub fn start_again_with_log(&mut self, filter: &str) -> Result<()> {
        self.log_filter = Some(filter.to_owned());
        self.start_again()
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> Result<()> {
        self.stop_by(Signal::SIGTERM)
    }

    /// Sends a signal, and waits until it has ended.
    pub fn stop_by(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        self.wait()
    }

    /// Waits until it ends, which must be successful.
    pub fn wait(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let mut status = None;
        eventually(STOP, "xlb ends", || {
            status = process.try_wait()?;
            Ok(status.is_some())
        })?;
        match status {
            Some(status) if !status.success() => bail!("xlb ended: {status}"),
            Some(_) | None => Ok(()),
        }
    }

    /// Lets it outlive this process.
    pub fn leave_running(mut self) {
        self.process.take();
    }

    /// Sends SIGHUP, and does not wait for the reload.
    pub fn hang_up(&self) -> Result<()> {
        self.signal(Signal::SIGHUP)
    }

    /// Runs `xlb WORDS..` to its end, with any exit code.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        command::output(&self.words(words)?.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs `xlb WORDS..`, which must succeed, and returns what it wrote.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let Output { code, stdout, stderr } = self.output(words)?;
        if code != 0 {
            bail!("`xlb {}` exited with {code}: {}", words.join(" "), stderr.trim_end());
        }
        Ok(stdout)
    }

    /// Runs `xlb WORDS.. -o json`, and returns the answer.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&[words, &["-o", "json"]].concat())?)?)
    }

    /// What Prometheus would scrape.
    pub fn metrics(&self) -> Result<Metrics> {
        self.run(&["metrics"]).map(Metrics::new)
    }

    /// `up`, `down` or `unknown`.
    pub fn health(&self, service: &str, backend: &str) -> Result<String> {
        let backends = self.json(&["backend", "list", service])?;
        let found = backends.as_array().into_iter().flatten().find(|it| it["name"] == backend);
        let found = found.with_context(|| format!("`xlb backend list` has no {service}/{backend}"))?;
        Ok(found["health"].as_str().unwrap_or_default().to_owned())
    }

    /// Runs the check of a backend, and returns its result and its detail.
    pub fn probe(&self, backend: &str) -> Result<(String, String)> {
        // A check that fails is an error of the command.
        let output = self.output(&["health", "probe", backend, "-o", "json"])?;
        let result: Value = serde_json::from_str(&output.stdout).with_context(|| output.stderr.clone())?;
        let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
        Ok((text("result"), text("detail")))
    }

    /// Waits until every backend of every service is up, and all but the backups get flows.
    pub fn wait_until_all_are_up(&self) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(15);
        let waited = eventually(LIMIT, "all backends are up and serve", || {
            let (services, backends) = (self.json(&["service", "list"])?, self.json(&["backend", "list"])?);
            let all = |list: &Value| list.as_array().cloned().unwrap_or_default();
            let first_choice = |service: &Value| {
                let its = |it: &&Value| it["service"] == service["name"] && it["backup"] == false;
                all(&backends).iter().filter(its).count()
            };
            Ok(all(&services).iter().all(|service| {
                service["backends_up"] == service["backends"]
                    && service["backends_serving"] == first_choice(service)
            }))
        });
        waited.map(drop).map_err(|error| self.explain(&error))
    }

    /// The words of a command line that runs the CLI against this daemon.
    fn words(&self, words: &[&str]) -> Result<Vec<String>> {
        let variables =
            environment(&self.directory).map(|(name, value)| format!("{name}={}", value.display()));
        let binary = binary()?.display().to_string();
        let words = words.iter().map(|&word| word.to_owned());
        Ok(["env".to_owned()].into_iter().chain(variables).chain([binary]).chain(words).collect())
    }

    /// Adds the end of the daemon's log to an error.
    fn explain(&self, error: &Error) -> Error {
        anyhow!("{error:#}\n{}", log_tail(&self.directory))
    }

    /// Its process.
    pub fn pid(&self) -> Result<Pid> {
        let process = self.process.as_ref().context("xlb is not running")?;
        Ok(Pid::from_raw(process.id().cast_signed()))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid()?, signal).with_context(|| format!("send {signal}"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A failure cannot be returned; the lab kills what is left in its namespaces.
        let _ = self.kill();
    }
}

/// The binary under test.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("XLB_BIN")
        .map_or_else(|| super::workspace().join("target/release/xlb"), PathBuf::from);
    if !path.exists() {
        bail!("{} does not exist; run `cargo xtask build`", path.display());
    }
    Ok(path)
}

/// Keeps everything of this daemon inside the lab's directory.
pub fn environment(directory: &Path) -> [(&'static str, PathBuf); 4] {
    [
        ("XLB_CONFIG", config_path(directory)),
        ("XLB_SOCKET", directory.join("xlb.sock")),
        ("XLB_STATE", directory.join("state")),
        ("XLB_PINS", pins(directory)),
    ]
}

/// The configuration file.
pub fn config_path(directory: &Path) -> PathBuf {
    directory.join("xlb.toml")
}

/// The directory of the daemon's pins.
pub fn pins(directory: &Path) -> PathBuf {
    directory.join(sweep::BPFFS).join("xlb")
}

/// The log of all runs of the daemon.
pub fn log_path(directory: &Path) -> PathBuf {
    directory.join(LOG)
}

/// The end of the daemon's log, for error messages.
pub fn log_tail(directory: &Path) -> String {
    const LINES: usize = 40;
    let log = fs::read_to_string(log_path(directory)).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LINES)..];
    format!("the end of xlb's log:\n  {}", tail.join("\n  "))
}
