//! The machine, as the controller asks it.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use tokio::sync::watch;

use crate::{
    controller::Host,
    datapath::{Attached, Links},
    event::{Problem, ProblemKind},
    spec::{self, Spec, overlay::Overlay, store::Store},
};

/// Files, interfaces and addresses of this host.
pub struct RealHost {
    config: PathBuf,
    store: Store,
    links: Links,
    /// The neighbour task looks at the same interfaces.
    interfaces: watch::Sender<Vec<Attached>>,
}

impl RealHost {
    pub fn new(config: PathBuf, store: Store, links: Links, interfaces: watch::Sender<Vec<Attached>>) -> Self {
        Self { config, store, links, interfaces }
    }
}

impl Host for RealHost {
    fn read_spec(&mut self) -> Result<Spec, Problem> {
        spec::read(&self.config).map_err(|mistakes| Problem {
            kind: ProblemKind::InvalidConfiguration,
            detail: format!("{} has mistakes; nothing was changed", self.config.display()),
            mistakes: mistakes.lines(),
        })
    }

    fn save_overlay(&mut self, overlay: &Overlay) -> anyhow::Result<()> {
        Ok(self.store.save(overlay)?)
    }

    fn attached(&mut self) -> anyhow::Result<Vec<Attached>> {
        let attached = self.links.refresh()?;
        self.interfaces.send_if_modified(|known| {
            let is_new = *known != attached;
            known.clone_from(&attached);
            is_new
        });
        Ok(attached)
    }

    fn addresses(&mut self) -> anyhow::Result<BTreeSet<IpAddr>> {
        let addresses = getifaddrs().context("read the addresses of this host")?;
        Ok(addresses
            .filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            })
            .collect())
    }
}
