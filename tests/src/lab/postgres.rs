//! PostgreSQL on a backend: a primary, or a replica that streams from one.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::{Pid, User, chown},
};

use super::{Backend, Family, command, wait::eventually};

/// Where every server listens.
pub const PORT: u16 = 5432;
/// The user of replicas, and its password.
const REPLICATION: (&str, &str) = ("replica", "of-the-replicas");
/// Debian's directory of versions.
const VERSIONS: &str = "/usr/lib/postgresql";
const ACCOUNT: &str = "postgres";
const START: Duration = Duration::from_secs(30);

/// A server. Dropping it kills it.
pub struct Postgres {
    /// The host where it runs.
    pub backend: Backend,
    programs: PathBuf,
    data: PathBuf,
    socket: PathBuf,
}

impl Postgres {
    /// A new cluster: its primary.
    pub fn primary(backend: &Backend, directory: &Path) -> Result<Self> {
        let server = Self::on(backend, directory)?;
        server.run("initdb", &["-A", "scram-sha-256", "--auth-local=trust", "--no-sync", "-U", ACCOUNT])?;
        server.append(
            "pg_hba.conf",
            "host all all 10.0.0.0/8 scram-sha-256\nhost replication all 10.0.0.0/8 scram-sha-256\n",
        )?;
        server.configure()?;
        server.start()?;
        let (user, password) = REPLICATION;
        server.sql(&format!("create role {user} login replication password '{password}'"))?;
        Ok(server)
    }

    /// A replica that streams from another server.
    pub fn replica_of(upstream: &Self, backend: &Backend, directory: &Path) -> Result<Self> {
        let server = Self::on(backend, directory)?;
        server.run(
            "pg_basebackup",
            &[
                "-d",
                &upstream.for_replicas(),
                "-D",
                "-DATA-",
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
            ],
        )?;
        server.configure()?;
        server.start()?;
        Ok(server)
    }

    fn on(backend: &Backend, directory: &Path) -> Result<Self> {
        let directory = directory.join(format!("postgres-{}", backend.name));
        let (data, socket) = (directory.join("data"), directory.join("socket"));
        let account = User::from_name(ACCOUNT)?
            .context("there is no user postgres; `cargo xtask setup` installs it")?;
        for path in [&directory, &data, &socket] {
            fs::create_dir_all(path)?;
            chown(path, Some(account.uid), Some(account.gid))?;
        }
        command::run(&["chmod", "700", &data.to_string_lossy()])?;
        Ok(Self { backend: backend.clone(), programs: programs()?, data, socket })
    }

    /// Its endpoint.
    pub fn address(&self) -> SocketAddr {
        self.backend.address.port(Family::V4, PORT)
    }

    /// Starts it, and waits until it answers.
    pub fn start(&self) -> Result<()> {
        let log = self.log_path();
        self.run("pg_ctl", &["-D", "-DATA-", "-l", &log.to_string_lossy(), "-w", "-t", "30", "-s", "start"])
            .with_context(|| format!("{}: {}", log.display(), self.log().unwrap_or_default()))
            .map(drop)
    }

    /// Its log.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.log_path())?)
    }

    fn log_path(&self) -> PathBuf {
        self.socket.with_file_name("log")
    }

    /// Kills all its processes at once, and waits until init has reaped them: a start believes in its file of the pid until
    /// then.
    pub fn kill(&self) -> Result<()> {
        let pids: Vec<_> = self.backend.namespace.pids()?.into_iter().map(Pid::from_raw).collect();
        for pid in &pids {
            // Some end by themselves meanwhile.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let is_gone = |pid: &Pid| kill(*pid, None) == Err(Errno::ESRCH);
        eventually(START, "the server has ended", || Ok(pids.iter().all(is_gone))).map(drop)
    }

    /// Makes a replica the primary. Returns when its new timeline began.
    pub fn promote(&self) -> Result<SystemTime> {
        let before = self.histories()?;
        self.run("pg_ctl", &["-D", "-DATA-", "-w", "-t", "30", "-s", "promote"])?;
        let new = self.histories()?.into_iter().find(|path| !before.contains(path));
        let history = new.context("the promotion made no history file")?;
        Ok(fs::metadata(history)?.modified()?)
    }

    fn histories(&self) -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(self.data.join("pg_wal"))?;
        let paths = files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
        Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|it| it == "history")).collect())
    }

    /// Lets a replica stream from another server, and waits until it does.
    pub fn follow(&self, upstream: &Self) -> Result<()> {
        self.set("primary_conninfo", &upstream.for_replicas())?;
        let query = format!(
            "select count(*) from pg_stat_wal_receiver where status = 'streaming' and sender_host = '{}'",
            upstream.address().ip()
        );
        let what = format!("{} follows {}", self.backend.name, upstream.backend.name);
        eventually(START, &what, || Ok(self.sql(&query)? == "1")).map(drop)
    }

    /// How its replicas connect.
    fn for_replicas(&self) -> String {
        let (user, password) = REPLICATION;
        format!("host={} user={user} password={password}", self.address().ip())
    }

    /// Sets a parameter that needs no restart.
    pub fn set(&self, parameter: &str, value: &str) -> Result<()> {
        self.sql(&format!("alter system set {parameter} = '{value}'"))?;
        self.sql("select pg_reload_conf()").map(drop)
    }

    /// Runs SQL as the superuser, not through the network.
    pub fn sql(&self, text: &str) -> Result<String> {
        self.sql_of("postgres", text)
    }

    /// The same in a database.
    pub fn sql_of(&self, database: &str, text: &str) -> Result<String> {
        let socket = self.socket.to_string_lossy();
        let words =
            ["-h", &socket, "-U", ACCOUNT, "-d", database, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text];
        Ok(self.run("psql", &words)?.trim().to_owned())
    }

    fn configure(&self) -> Result<()> {
        let (socket, name) = (self.socket.display(), &self.backend.name);
        let text = format!(
            "listen_addresses = '*'\nunix_socket_directories = '{socket}'\nport = {PORT}\ncluster_name = '{name}'\n\
             shared_buffers = 16MB\nfsync = off\nmax_connections = 400\nmax_wal_senders = 10\nwal_keep_size = 256MB\n\
             wal_log_hints = on\nwal_receiver_status_interval = 1s\nwal_retrieve_retry_interval = 500ms\n\
             log_connections = on\nlog_disconnections = on\n"
        );
        self.append("postgresql.conf", &text)
    }

    fn append(&self, file: &str, text: &str) -> Result<()> {
        let path = self.data.join(file);
        let mut file = OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// Runs a program of PostgreSQL to its end, as its user. `-DATA-` stands for the data directory.
    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let program = self.programs.join(program);
        let (program, data) =
            (program.to_string_lossy().into_owned(), self.data.to_string_lossy().into_owned());
        let home = format!("PGDATA={data}");
        let as_user = [
            "setpriv",
            "--reuid",
            ACCOUNT,
            "--regid",
            ACCOUNT,
            "--clear-groups",
            "env",
            &home,
            "LC_ALL=C.UTF-8",
        ];
        let words = words.iter().map(|word| if *word == "-DATA-" { data.as_str() } else { word });
        let all: Vec<&str> = as_user.into_iter().chain([program.as_str()]).chain(words).collect();
        self.backend.namespace.run(&all)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The programs of the newest installed version.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir(VERSIONS)
        .with_context(|| format!("list {VERSIONS}; `cargo xtask setup` installs it"))?;
    let mut found = Vec::new();
    for version in versions {
        let path = version?.path().join("bin");
        let number = path.parent().and_then(|it| it.file_name()?.to_str()?.parse::<u32>().ok());
        if let Some(number) = number.filter(|_| path.join("initdb").exists()) {
            found.push((number, path));
        }
    }
    found.sort();
    match found.pop() {
        Some((_, path)) => Ok(path),
        None => bail!("{VERSIONS} has no version with a server; `cargo xtask setup` installs one"),
    }
}
