//! The machine that xlb runs on, as the controller asks it.

use std::{collections::BTreeSet, fmt, net::IpAddr, path::PathBuf};

use anyhow::Context;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use super::Host;
use crate::{
    datapath::{Attached, preflight},
    event::{Problem, ProblemKind},
    spec::{self, Spec, overlay::Overlay, store::Store},
};

/// Tells the interfaces that the program is attached to, as they are now.
pub type LookAtInterfaces = Box<dyn FnMut() -> anyhow::Result<Vec<Attached>> + Send>;

/// Files and interfaces.
pub struct Machine {
    pub config: PathBuf,
    pub store: Store,
    pub interfaces: LookAtInterfaces,
}

impl Host for Machine {
    fn read_spec(&mut self) -> Result<Spec, Problem> {
        spec::read(&self.config).map_err(|mistakes| Problem {
            kind: ProblemKind::InvalidConfiguration,
            detail: format!("{} is not in force, because it has mistakes", self.config.display()),
            mistakes: mistakes.each(),
        })
    }

    fn save_overlay(&mut self, overlay: &Overlay) -> anyhow::Result<()> {
        self.store.save(overlay).context("keep the change for the next start")
    }

    fn attached(&mut self) -> anyhow::Result<Vec<Attached>> {
        (self.interfaces)()
    }

    fn addresses(&mut self) -> anyhow::Result<BTreeSet<IpAddr>> {
        let interfaces = getifaddrs().context("list the addresses of this host")?;
        Ok(interfaces.filter_map(|interface| address(&interface.address?)).collect())
    }

    fn local_ports(&mut self) -> anyhow::Result<(u16, u16)> {
        preflight::host::local_ports()
    }
}

fn address(socket: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = socket.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    v4.or_else(|| socket.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, store, interfaces: _ } = self;
        f.debug_struct("Machine").field("config", config).field("store", store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_bad_file_is_a_problem_with_all_its_mistakes() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("xlb.toml");
        fs::write(&config, "version = 1\nnonsense = true\n").unwrap();
        let mut machine = machine(&directory, config);

        let problem = machine.read_spec().unwrap_err();

        assert_eq!(problem.kind, ProblemKind::InvalidConfiguration);
        assert!(problem.mistakes.iter().any(|mistake| mistake.contains("xlb.toml:2:1")), "{problem:?}");
    }

    #[test]
    fn the_loopback_address_is_among_the_hosts_own() {
        let directory = tempfile::tempdir().unwrap();
        let mut machine = machine(&directory, directory.path().join("xlb.toml"));

        assert!(machine.addresses().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
    }

    fn machine(directory: &tempfile::TempDir, config: PathBuf) -> Machine {
        Machine { config, store: Store::new(directory.path()), interfaces: Box::new(|| Ok(Vec::new())) }
    }
}
