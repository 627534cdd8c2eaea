//! Redis on a backend, without persistence.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};

use super::{Backend, Lab, command, process::Program, wait::eventually};

/// Where every Redis listens.
pub const PORT: u16 = 6379;
/// As in docs/databases.md.
pub const USERS: &str = "user default on nopass ~* &* +@all\n\
                         user xlb on >secret resetkeys resetchannels -@all +ping +info";

/// On a busy machine.
const START: Duration = Duration::from_secs(20);

/// A Redis server. Dropping it kills it.
pub struct Redis {
    /// The host where it runs.
    pub backend: Backend,
    directory: PathBuf,
    program: Program,
}

impl Redis {
    /// Starts a server on the backend of this number, with more lines of its configuration, and waits until it answers.
    pub fn start(lab: &Lab, number: usize, lines: &str) -> Result<Self> {
        let backend = lab.backends[number - 1].clone();
        let directory = lab.directory().join(format!("{}.redis", backend.name));
        fs::create_dir(&directory)?;
        let place = directory.display();
        let configuration = format!(
            "port {PORT}\nprotected-mode no\nsave \"\"\ndir {place}\nunixsocket {place}/sock\n\
             logfile {place}/log\nrepl-diskless-sync-delay 0\n{lines}\n"
        );
        let mut server = Self { backend, directory, program: Program::default() };
        fs::write(server.configuration(), configuration)?;
        server.start_again()?;
        Ok(server)
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join(format!("{}.conf", self.backend.name))
    }

    /// Starts it after [`Self::kill`], without data.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = self.backend.namespace.command("redis-server");
        command.arg(self.configuration());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("start redis-server; `cargo xtask setup` installs it")?;
        self.program = process.into();
        let answers = eventually(START, &format!("Redis on {} answers", self.backend.name), || {
            Ok(self.ask(&["PING"]).is_ok_and(|answer| answer == "PONG"))
        });
        answers.map(drop).with_context(|| self.log().unwrap_or_default())
    }

    /// Kills it at once.
    pub fn kill(&mut self) -> Result<()> {
        self.program.kill()
    }

    /// Runs a command, and returns what `redis-cli` prints.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let socket = self.directory.join("sock").display().to_string();
        let answer = command::run(&[&["redis-cli", "-s", &socket], words].concat())?;
        Ok(answer.trim_end().to_owned())
    }

    /// What it has logged.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join("log"))?)
    }
}
