//! Everything that the demo, and `lab up`, show: network, servers, configuration, daemon.

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};

use crate::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, Web, config::Service, daemon, echo, namespace, story::Story,
};

/// Where the echo servers listen, and the service that balances them.
pub const UDP_PORT: u16 = 5353;

/// Dropping it takes everything down, except after [`keep`](Self::keep).
pub struct Stage {
    /// The daemon's configuration.
    pub config: Config,
    /// The web server of each backend.
    pub web: Vec<Web>,
    daemon: Option<Daemon>,
    /// The network, and its files. Dropped last: everything else runs in it.
    pub lab: Lab,
}

impl Stage {
    /// Everything but the daemon.
    pub fn build(tag: &'static str) -> Result<Self> {
        daemon::binary()?;
        let lab = Lab::build(&Topology::new(tag, Shape::TwoNics))?;
        let web = lab.web_servers()?;
        for backend in &lab.backends {
            let address = backend.address.port(Family::V4, UDP_PORT);
            echo::process(&std::env::current_exe()?, Protocol::Udp, backend, address)?;
        }
        let echoes = Service::over(&lab, "echo", Protocol::Udp, Mode::FullNat, UDP_PORT, UDP_PORT);
        let config = Config::web(&lab, Mode::FullNat).service(echoes.only(Family::V4));
        Ok(Self { config, web, daemon: None, lab })
    }

    /// Starts the daemon, or starts it again, and waits until all servers are up.
    pub fn start_daemon(&mut self) -> Result<()> {
        match &mut self.daemon {
            Some(daemon) => daemon.start_again()?,
            None => self.daemon = Some(self.lab.start(&self.config)?),
        }
        self.daemon()?.wait_until_all_are_up()
    }

    /// `kill -9`.
    pub fn kill_daemon(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), Daemon::kill)
    }

    /// The daemon that was started.
    pub fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("the daemon was not started")
    }

    /// Names of all namespaces.
    pub fn namespaces(&self) -> Vec<String> {
        let all = namespace::beginning_with(&format!("{}-", self.lab.name())).unwrap_or_default();
        all.iter().map(ToString::to_string).collect()
    }

    /// Leaves everything running, and prints how to use it.
    pub fn keep(&mut self, story: &Story) -> Result<()> {
        self.lab.keep()?;
        self.web.drain(..).for_each(Web::leave_running);
        if let Some(daemon) = self.daemon.take() {
            daemon.leave_running();
        }
        for (name, value) in daemon::environment(self.lab.directory()) {
            story.say(&format!("  $ export {name}={}", value.display()));
        }
        story.say(&format!("  $ {} backend list", daemon::binary()?.display()));
        story.say(&format!("  $ ip netns exec {} curl http://192.0.2.10/", self.lab.client));
        story.say("  $ cargo xtask lab shell        # a shell on the client, with all of this set");
        story.say("  $ cargo xtask lab down         # removes it");
        Ok(())
    }
}
