//! MariaDB on a backend, with a data directory of its own.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::User;

use super::{
    Backend, Family, Lab,
    address::SOURCE,
    certificate,
    command::{self, Output},
    process::Program,
    wait::eventually,
};

/// Where every database server listens.
pub const PORT: u16 = 3306;

/// On a busy machine.
const START: Duration = Duration::from_secs(60);
/// The user that it runs as: it refuses to be root.
const USER: &str = "mysql";

/// The user of replicas, and its password.
const REPLICATION: &str = "replica";

/// `ip netns exec` gives each process mounts of its own.
const WITH_HOSTS: &str = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";

/// A database server. Dropping it kills it.
pub struct MariaDb {
    /// The host where it runs.
    pub backend: Backend,
    directory: PathBuf,
    options: Vec<String>,
    program: Program,
}

impl MariaDb {
    /// Starts a server on the backend of this number, with more `options`, and waits until it answers.
    pub fn start(lab: &Lab, number: u8, options: &[&str]) -> Result<Self> {
        let backend = lab.backends[usize::from(number) - 1].clone();
        let directory = lab.directory().join(format!("{}.mariadb", backend.name));
        fs::create_dir(&directory)?;
        let own = format!("--server-id={number}");
        let options = [own.as_str()].iter().chain(options).map(|&option| option.to_owned()).collect();
        let mut server = Self { backend, directory, options, program: Program::default() };
        let user =
            User::from_name(USER)?.context("there is no user mysql; `cargo xtask setup` installs it")?;
        let give = |file: &Path| chown(file, Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        if !server.certificate().exists() {
            certificate::make(&server.certificate(), &server.private_key())?;
            give(&server.private_key())?;
        }
        server.write_hosts(lab)?;
        give(&server.directory)?;
        let options = server.common_options();
        let mut install = vec!["mariadb-install-db"];
        install.extend(options.iter().map(String::as_str));
        install.extend(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        command::run(&install)?;
        server.start_again()?;
        Ok(server)
    }

    /// Kills it at once.
    pub fn kill(&mut self) -> Result<()> {
        self.program.kill()
    }

    /// Starts it after [`Self::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let process = self
            .backend
            .namespace
            .command("sh")
            .args(["-c", WITH_HOSTS, &file("hosts"), "mariadbd"])
            .args(self.common_options())
            .arg(format!("--socket={}", self.socket()))
            .arg(format!("--pid-file={}", file("pid")))
            .arg(format!("--log-error={}", file("error.log")))
            .arg(format!("--general-log-file={}", file("general.log")))
            .arg(format!("--log-bin={}", file("data/binlog")))
            .arg(format!("--relay-log={}", file("data/relay")))
            .arg(format!("--ssl-cert={}", self.certificate().display()))
            .arg(format!("--ssl-key={}", self.private_key().display()))
            .args([&format!("--port={PORT}"), "--log-slave-updates", "--gtid-strict-mode=1"])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start mariadbd; `cargo xtask setup` installs it")?;
        self.program = process.into();
        let answers = eventually(START, &format!("MariaDB on {} answers", self.backend.name), || {
            Ok(self.client("SELECT 1")?.code == 0)
        });
        answers.map(drop).with_context(|| self.error_log().unwrap_or_default())
    }

    /// Lets it follow another server, and waits until it has what that one has.
    pub fn follow(&self, upstream: &Self) -> Result<()> {
        upstream.sql(&format!(
            "SET SESSION sql_log_bin = 0; CREATE USER IF NOT EXISTS {REPLICATION} IDENTIFIED BY '{REPLICATION}';
             GRANT REPLICATION SLAVE ON *.* TO {REPLICATION}"
        ))?;
        self.sql(&format!(
            "CHANGE MASTER TO master_host = '{}', master_user = '{REPLICATION}', master_password = '{REPLICATION}',
             master_use_gtid = slave_pos, master_ssl_verify_server_cert = 0; START SLAVE",
            upstream.backend.address.of(Family::V4)
        ))?;
        self.wait_for(upstream)
    }

    /// Waits until it has what the server has that it follows.
    pub fn wait_for(&self, upstream: &Self) -> Result<()> {
        let gtid = upstream.sql("SELECT @@gtid_current_pos")?;
        let result = self.sql(&format!("SELECT MASTER_GTID_WAIT('{gtid}', 60)"))?;
        ensure!(result == "0", "{} does not get GTID {gtid}", self.backend.name);
        Ok(())
    }

    /// Runs statements as root, and returns what they print, without the names of columns.
    pub fn sql(&self, statements: &str) -> Result<String> {
        let Output { code, stdout, stderr } = self.client(statements)?;
        ensure!(code == 0, "{statements}: {stderr}");
        Ok(stdout.trim_end().to_owned())
    }

    /// A counter or variable of `SHOW GLOBAL STATUS`.
    pub fn status(&self, name: &str) -> Result<String> {
        let row = self.sql(&format!("SHOW GLOBAL STATUS LIKE '{name}'"))?;
        let (_, value) = row.split_once('\t').with_context(|| format!("there is no status {name}"))?;
        Ok(value.to_owned())
    }

    /// What it has logged.
    pub fn error_log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join("error.log"))?)
    }

    /// Logins and statements since its last start. It needs the option `--general-log=1`.
    pub fn general_log(&self) -> Result<String> {
        let log = fs::read_to_string(self.directory.join("general.log"))?;
        let (_, last) = log.rsplit_once("started with:").context("the server has not begun its log")?;
        Ok(last.to_owned())
    }

    /// The certificate of all servers of a lab, which is its own CA.
    pub fn certificate(&self) -> PathBuf {
        self.directory.with_file_name("mariadb.cert.pem")
    }

    fn private_key(&self) -> PathBuf {
        self.directory.with_file_name("mariadb.key.pem")
    }

    fn client(&self, statements: &str) -> Result<Output> {
        let socket = format!("--socket={}", self.socket());
        command::output(&["mariadb", "--no-defaults", &socket, "-N", "-B", "-e", statements])
    }

    fn socket(&self) -> String {
        self.directory.join("sock").display().to_string()
    }

    /// Without InnoDB, a server starts in a fraction of a second and takes 5 MB.
    fn common_options(&self) -> Vec<String> {
        let data = self.directory.join("data");
        vec![
            "--no-defaults".to_owned(),
            format!("--user={USER}"),
            format!("--datadir={}", data.display()),
            "--skip-innodb".to_owned(),
            "--default-storage-engine=Aria".to_owned(),
            "--aria-log-file-size=8M".to_owned(),
        ]
    }

    /// Servers look up the names of their clients.
    fn write_hosts(&self, lab: &Lab) -> Result<()> {
        let mut hosts = format!("127.0.0.1 localhost\n{} xlb.example.org\n", SOURCE.of(Family::V4));
        for Backend { name, address, .. } in &lab.backends {
            hosts += &format!("{} {name}.example.org\n", address.of(Family::V4));
        }
        Ok(fs::write(self.directory.join("hosts"), hosts)?)
    }
}
