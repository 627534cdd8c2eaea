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
mod engine;
mod lines;
mod mariadb;
mod postgres;
mod redis;
mod refusal;
mod row;
mod verdict;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};

pub use self::{
    clients::{Ack, Clients, Reads, Writes},
    engine::Engine,
    row::Row,
    verdict::{Promotion, Verdict},
};
use super::{
    Config, Daemon, Family, Lab, Shape, Topology, address,
    config::{Check, Service},
    pass, sweep,
    wait::eventually,
};

/// From one check to the next, and the limit of a check.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// The limit of every wait for the cluster or the daemon.
const SETTLED: Duration = Duration::from_secs(30);

/// The cluster, its daemon, and their network.
pub struct Scene<E> {
    /// web-1 is the primary at first.
    pub servers: [E; 3],
    /// The daemon.
    pub xlb: Daemon,
    /// The network. Dropped last.
    pub lab: Lab,
}

impl<E: Engine> Scene<E> {
    /// Starts everything, and waits until the primary is known and both replicas serve reads, also in the data plane.
    pub fn start(tag: &'static str) -> Result<Self> {
        Self::start_with(tag, INTERVAL)
    }

    /// The same with another time from one check to the next, which is also the limit of a check.
    pub fn start_with(tag: &'static str, interval: Duration) -> Result<Self> {
        let lab = Lab::build(&Topology::new(tag, Shape::TwoNics))?;
        // Resets from xlb reach the clients.
        pass::pass_everything((&lab.client, "eth0"), &lab.directory().join(sweep::BPFFS))?;
        let servers = E::cluster(&lab)?;
        let xlb = lab.start(&configuration::<E>(&lab, interval)?)?;
        let scene = Self { servers, xlb, lab };
        scene.wait_for_primary("web-1")?;
        scene.wait_for_readers(&["web-2", "web-3"])?;
        scene.wait_for_new_reads(&["web-2", "web-3"])?;
        Ok(scene)
    }

    /// Starts the clients.
    pub fn clients(&self) -> Clients {
        Clients::start::<E>(&self.lab.client)
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
}

/// The endpoint for writes, or for reads.
fn endpoint<E: Engine>(reads: bool) -> SocketAddr {
    address::SERVICE.port(Family::V4, E::PORT + u16::from(reads))
}

/// Both services over all servers, with the same check.
fn configuration<E: Engine>(lab: &Lab, interval: Duration) -> Result<Config> {
    let check = format!("{}\n{}", E::CHECK, lab.password_file(E::PASSWORD)?);
    let service = |name: &str, reads, keys: &[&'static str]| {
        let port = endpoint::<E>(reads).port();
        let mut service =
            Service::over(lab, name, Protocol::Tcp, Mode::FullNat, port, E::PORT).only(Family::V4);
        service.keys = keys.to_vec();
        service.health.check = Check::Written(check.clone());
        (service.health.interval, service.health.timeout) = (interval, interval);
        service
    };
    let keys = &["role = \"replica\"", "on_role_change = \"keep\"", "max_lag = \"2s\""];
    let mut reads = service("db-read", true, keys);
    reads.backends.iter_mut().for_each(|backend| backend.backup = true);
    Ok(Config::new(lab).service(service("db", false, &["role = \"primary\""])).service(reads))
}
