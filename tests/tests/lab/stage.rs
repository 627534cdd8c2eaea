//! Labs that several tests use.

use std::fs;

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{Config, Daemon, Family, Lab, Shape, Topology, Web, config::Service};

pub const ECHO: u16 = 7;

/// One backend behind two NICs.
pub fn one_backend(tag: &'static str) -> Result<Lab> {
    Lab::build(&Topology::new(tag, Shape::TwoNics).backends(1))
}

/// The same, with a valid configuration.
pub fn configured(tag: &'static str) -> Result<Lab> {
    let lab = one_backend(tag)?;
    fs::write(lab.config_path(), Config::web(&lab, Mode::FullNat).to_string())?;
    Ok(lab)
}

/// A serving daemon, and its servers.
pub struct Stage {
    pub web: Vec<Web>,
    pub config: Config,
    pub xlb: Daemon,
    pub lab: Lab,
}

impl Stage {
    /// Three web servers, all up.
    pub fn web(tag: &'static str) -> Result<Self> {
        let lab = Lab::build(&Topology::new(tag, Shape::TwoNics))?;
        let web = lab.web_servers()?;
        let config = Config::web(&lab, Mode::FullNat);
        let xlb = lab.start(&config)?;
        xlb.wait_until_all_are_up()?;
        assert_served_by(&lab, 3)?;
        Ok(Self { web, config, xlb, lab })
    }

    /// A service `echo` on three backends, whose servers are not started.
    pub fn echo(tag: &'static str) -> Result<Self> {
        let lab = Lab::build(&Topology::new(tag, Shape::TwoNics))?;
        let config =
            Config::new(&lab).service(Service::over(&lab, "echo", Protocol::Tcp, Mode::FullNat, ECHO, ECHO));
        let xlb = lab.start(&config)?;
        Ok(Self { web: Vec::new(), config, xlb, lab })
    }
}

/// 300 requests per family: all answered, in equal shares.
pub fn assert_served_by(lab: &Lab, backends: usize) -> Result<()> {
    for family in Family::ALL {
        let tally = lab.visit(family, 80, 300)?;
        assert!(tally.is_even(backends), "{family:?}: {tally}");
    }
    Ok(())
}

pub fn new_flows(xlb: &Daemon, service: &str, backend: &str) -> Result<u64> {
    let labels = [("service", service), ("backend", backend)];
    Ok(xlb.metrics()?.sum("xlb_backend_new_flows_total", &labels) as u64)
}
