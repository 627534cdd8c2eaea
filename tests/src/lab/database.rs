//! A database cluster behind two services: one for writes, which only its primary serves, and one for reads.
//!
//! ```text
//!   200 writers ─▶ 192.0.2.10:5432  db        role = primary ─┐      web-1  primary
//!    50 readers ─▶ 192.0.2.10:5433  db-read   role = replica ─┴─▶    web-2  replica of web-1
//!                                                                    web-3  replica of web-2
//! ```
//!
//! web-3 follows web-2, so that it never has rows that web-2 lacks when web-2 is promoted.

mod acts;
mod clients;
pub mod demo;
mod verdict;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use lb_common::{net::Protocol, service::Mode};

pub use self::{
    clients::{Ack, Clients, Reads, Writes},
    verdict::Verdict,
};
use super::{
    Config, Daemon, Family, Lab, Shape, Topology, address,
    config::{Check, Service},
    postgres::{self, Postgres},
    wait::eventually,
};

/// Where the services listen.
pub const WRITES: u16 = 5432;
/// The port for reads.
pub const READS: u16 = 5433;
/// From one check to the next.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// The limit of every wait for the cluster or the daemon.
const SETTLED: Duration = Duration::from_secs(30);

/// The cluster, its daemon, and their network.
pub struct Scene {
    /// web-1 is the primary at first.
    pub servers: [Postgres; 3],
    /// The daemon.
    pub xlb: Daemon,
    /// The network. Dropped last.
    pub lab: Lab,
}

impl Scene {
    /// Starts everything, and waits until the primary is known and both replicas serve reads.
    pub fn start(tag: &'static str) -> Result<Self> {
        let lab = Lab::build(&Topology::new(tag, Shape::TwoNics))?;
        let [first, second, third] = lab.backends.as_slice() else { bail!("the lab has no three servers") };
        let primary = Postgres::primary(first, lab.directory())?;
        let candidate = Postgres::replica_of(&primary, second, lab.directory())?;
        let replica = Postgres::replica_of(&candidate, third, lab.directory())?;
        let servers = [primary, candidate, replica];
        let xlb = lab.start(&configuration(&lab)?)?;
        let scene = Self { servers, xlb, lab };
        scene.wait_for_primary("web-1")?;
        scene.wait_for_readers(&["web-2", "web-3"])?;
        Ok(scene)
    }

    /// Starts the clients.
    pub fn clients(&self) -> Clients {
        Clients::start(&self.lab.client)
    }

    /// Waits until new writes go to this server.
    pub fn wait_for_primary(&self, name: &str) -> Result<Duration> {
        eventually(SETTLED, &format!("{name} is the primary"), || {
            Ok(self.roles("db")?["primary"].as_str() == Some(name))
        })
        .with_context(|| format!("xlb role list: {:?}", self.roles("db")))
    }

    /// Waits until new reads go to these servers, as far as roles decide.
    pub fn wait_for_readers(&self, names: &[&str]) -> Result<Duration> {
        eventually(SETTLED, &format!("{names:?} serve reads"), || Ok(self.readers()? == names))
            .with_context(|| format!("xlb role list: {:?}", self.roles("db-read")))
    }

    /// The servers that get reads, as far as roles decide.
    pub fn readers(&self) -> Result<Vec<String>> {
        let roles = self.roles("db-read")?;
        let servers = roles["servers"].as_array().cloned().unwrap_or_default();
        let of_tier = |is_backup: bool| -> Vec<String> {
            let serving = servers.iter().filter(|it| it["serves"] == true && it["is_backup"] == is_backup);
            serving.filter_map(|it| it["name"].as_str().map(str::to_owned)).collect()
        };
        let regular = of_tier(false);
        Ok(if regular.is_empty() { of_tier(true) } else { regular })
    }

    /// What `xlb role list` says of a service.
    pub fn roles(&self, service: &str) -> Result<serde_json::Value> {
        let all: Vec<serde_json::Value> =
            serde_json::from_str(&self.xlb.run(&["role", "list", "-o", "json"])?)?;
        let found = all.into_iter().find(|it| it["service"] == service);
        found.with_context(|| format!("`xlb role list` has no service {service}"))
    }

    /// The rows that a server has, each with the server that took it, and when.
    pub fn rows(&self, server: usize) -> Result<Vec<Row>> {
        let text = self.servers[server].sql_of(
            postgres::APPLICATION.0,
            "select writer, n, host(server), extract(epoch from at) from rows order by at",
        )?;
        text.lines().map(Row::parse).collect()
    }

    /// The endpoint of a service.
    pub fn endpoint(port: u16) -> SocketAddr {
        address::SERVICE.port(Family::V4, port)
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Who wrote it, and its number.
    pub key: (u32, u32),
    /// The server that took it.
    pub server: IpAddr,
    /// When.
    pub at: SystemTime,
}

impl Row {
    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<_> = line.split('|').collect();
        let [writer, n, server, at] = fields[..] else { anyhow::bail!("not a row: {line}") };
        Ok(Self {
            key: (writer.parse()?, n.parse()?),
            server: server.parse()?,
            at: UNIX_EPOCH + Duration::from_secs_f64(at.parse()?),
        })
    }
}

/// Both services over all servers, with the same check.
fn configuration(lab: &Lab) -> Result<Config> {
    let (user, password) = postgres::CHECKER;
    let password_file = lab.directory().join("checker.pass");
    fs::write(&password_file, password)?;
    super::command::run(&["chmod", "600", &password_file.to_string_lossy()])?;
    let login =
        format!("type = \"postgres\"\nuser = \"{user}\"\npassword_file = \"{}\"", password_file.display());
    let service = |name: &str, port, keys: &[&'static str]| {
        let mut service =
            Service::over(lab, name, Protocol::Tcp, Mode::FullNat, port, postgres::PORT).only(Family::V4);
        service.keys = keys.to_vec();
        service.health.check = Check::Written(login.clone());
        (service.health.interval, service.health.timeout) = (INTERVAL, INTERVAL);
        service
    };
    let mut reads =
        service("db-read", READS, &["role = \"replica\"", "on_role_change = \"keep\"", "max_lag = \"2s\""]);
    reads.backends.iter_mut().for_each(|backend| backend.backup = true);
    Ok(Config::new(lab).service(service("db", WRITES, &["role = \"primary\""])).service(reads))
}
