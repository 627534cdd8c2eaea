//! nginx on a backend: answers with its name, serves files, accepts uploads.

use std::{
    fs,
    net::TcpStream,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Backend, Family, certificate, process::Program, wait::eventually};

/// Where every web server listens.
pub const PORT: u16 = 8080;

const START: Duration = Duration::from_secs(10);

/// A web server. Dropping it kills it.
pub struct Web {
    /// The host where it runs. It answers with the host's name.
    pub backend: Backend,
    ports: RangeInclusive<u16>,
    encryption: Option<Encryption>,
    directory: PathBuf,
    program: Program,
}

/// With this, the ports are those of https, and checks are logged.
#[derive(Clone, Debug)]
pub struct Encryption {
    /// The certificate, which is its own CA.
    pub certificate: PathBuf,
    private_key: PathBuf,
}

impl Encryption {
    /// Makes a certificate in this directory.
    pub fn make(directory: &Path) -> Result<Self> {
        Self::make_by(certificate::make, "web", directory)
    }

    /// The same with a certificate that has expired.
    pub fn make_expired(directory: &Path) -> Result<Self> {
        Self::make_by(certificate::make_expired, "expired", directory)
    }

    fn make_by(make: fn(&Path, &Path) -> Result<()>, name: &str, directory: &Path) -> Result<Self> {
        let made = Self {
            certificate: directory.join(format!("{name}.cert.pem")),
            private_key: directory.join(format!("{name}.key.pem")),
        };
        make(&made.certificate, &made.private_key)?;
        Ok(made)
    }
}

impl Web {
    /// Starts nginx on these ports of `backend`, with its files under `directory`, and waits until it accepts connections.
    ///
    /// `/` answers with the backend's name, `/files/` serves `directory/files`, a PUT under `/uploads/` writes there.
    pub fn start(
        backend: &Backend,
        ports: RangeInclusive<u16>,
        encryption: Option<&Encryption>,
        directory: &Path,
    ) -> Result<Self> {
        for name in ["files", "uploads"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let mut web = Self {
            backend: backend.clone(),
            ports,
            encryption: encryption.cloned(),
            directory: directory.to_owned(),
            program: Program::default(),
        };
        fs::write(web.file("conf"), web.configuration())?;
        web.start_again()?;
        Ok(web)
    }

    /// Kills it at once: from now on the host refuses connections.
    pub fn kill(&mut self) -> Result<()> {
        self.program.kill()
    }

    /// Starts it after [`Self::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        let process = self
            .backend
            .namespace
            .command("nginx")
            .arg("-p")
            .arg(&self.directory)
            .arg("-e")
            .arg(self.file("error.log"))
            .arg("-c")
            .arg(self.file("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start nginx; `cargo xtask setup` installs it")?;
        self.program = process.into();
        self.wait_until_it_accepts()
    }

    /// Stops it with SIGSTOP: the kernel accepts connections, and no request is answered.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Ends [`Self::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// The requests that it has logged, as `CLIENT REQUEST-LINE`. Health checks are not logged.
    pub fn requests(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(self.file("access.log"))?.lines().map(str::to_owned).collect())
    }

    /// The log of the checks that it has answered over TLS, as `PORT SECONDS-SINCE-1970`.
    pub fn checks(&self) -> PathBuf {
        self.file("checks.log")
    }

    /// Lets it outlive this process.
    pub fn leave_running(self) {
        self.program.leave_running();
    }

    /// Its process.
    pub fn pid(&self) -> Result<Pid> {
        self.program.pid()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid()?, signal)?)
    }

    fn wait_until_it_accepts(&self) -> Result<()> {
        let Backend { name, namespace, address } = &self.backend;
        for family in Family::ALL {
            namespace.inside(|| {
                eventually(START, &format!("nginx on {name} accepts connections"), || {
                    Ok(TcpStream::connect(address.port(family, *self.ports.end())).is_ok())
                })
            })?;
        }
        Ok(())
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{}.{kind}", self.backend.name))
    }

    fn configuration(&self) -> String {
        let (directory, name) = (self.directory.display(), &self.backend.name);
        let (first, last) = (self.ports.start(), self.ports.end());
        let (ssl, certificate, log_of_checks) = match &self.encryption {
            None => ("", String::new(), "off".to_owned()),
            Some(Encryption { certificate, private_key }) => (
                " ssl",
                format!(
                    "ssl_certificate {};\nssl_certificate_key {};",
                    certificate.display(),
                    private_key.display()
                ),
                format!("{} check", self.checks().display()),
            ),
        };
        // One process, so that a signal to it is a signal to all of nginx.
        format!(
            "daemon off;
master_process off;
user root;
pid {directory}/{name}.pid;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
    log_format who '$remote_addr $request';
    log_format check '$server_port $msec';
    {certificate}
    access_log {directory}/{name}.access.log who;
    client_body_temp_path {directory}/{name}.body;
    proxy_temp_path {directory}/{name}.unused;
    fastcgi_temp_path {directory}/{name}.unused;
    uwsgi_temp_path {directory}/{name}.unused;
    scgi_temp_path {directory}/{name}.unused;
    client_max_body_size 0;
    server {{
        listen {first}-{last}{ssl} backlog=16384;
        listen [::]:{first}-{last}{ssl} backlog=16384;
        location / {{ return 200 '{name}\\n'; }}
        location /healthz {{ access_log {log_of_checks}; return 200 'ok\\n'; }}
        location /files/ {{ root {directory}; }}
        location /uploads/ {{ root {directory}; dav_methods PUT; }}
    }}
}}
"
        )
    }
}
