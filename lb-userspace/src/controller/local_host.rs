//! The controller's interface to the host, in production.

use std::{collections::BTreeSet, fmt, net::IpAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use tokio::sync::{mpsc, watch};

use super::{Host, roles::RoleMemory};
use crate::{
    announced_addresses::{self, Placed},
    cluster::{
        self, Document,
        copy::{self, Copy},
    },
    datapath::{Attached, preflight},
    drain_store,
    group::{status::GroupStatus, view::View},
    hash_key::KeyError,
    problem::{Problem, ProblemKind},
    role_store,
    shared::Shared,
    spec::{self, Mistakes, Service, Services, Source, Spec, overlay::Overlay, store::Store},
    track_file::TrackFile,
};

/// Lists the interfaces that the program is attached to.
pub type ListInterfaces = Box<dyn FnMut() -> anyhow::Result<Vec<Attached>> + Send>;

/// Configuration file, saved overlay, and interfaces.
pub struct LocalHost {
    pub config: PathBuf,
    pub store: Store,
    pub track_file: TrackFile,
    pub announce_device: Option<String>,
    pub interfaces: ListInterfaces,
    /// `None`: this node is alone.
    pub group: Option<GroupLink>,
    /// `None`: there is no `[cluster]`.
    pub cluster: Option<ClusterLink>,
}

/// To the exchange with etcd.
#[derive(Debug)]
pub struct ClusterLink {
    /// What it says.
    pub status: watch::Receiver<Arc<cluster::Status>>,
    /// What it is told of this node.
    pub report: watch::Sender<cluster::Report>,
    /// What it is to write.
    pub writes: mpsc::Sender<cluster::Write>,
    /// The file that is in force.
    pub file: Source,
    /// The file that was read last.
    pub read: Option<Source>,
}

/// To the exchange of flows.
#[derive(Debug)]
pub struct GroupLink {
    /// What it says of the group.
    pub status: watch::Receiver<Arc<GroupStatus>>,
    /// What it is told of the services.
    pub view: watch::Sender<Arc<View>>,
}

impl Host for LocalHost {
    fn read_spec(&mut self, document: Option<&Document>) -> Result<Spec, Problem> {
        let name = self.config.display().to_string();
        let host = addresses()?;
        let invalid = |mistakes: Mistakes| has_errors(&name, &mistakes);
        let source = spec::read_source(&self.config).map_err(invalid)?;
        let spec = match document {
            Some(document) => {
                // A start begins with the file as it is.
                source.parse(&BTreeSet::new()).map_err(invalid)?;
                let shared = format!("cluster revision {}", document.revision);
                let services = Services { name: &shared, text: &document.text };
                source.parse_with(services, &host).map_err(invalid)?
            }
            None => source.parse(&host).map_err(invalid)?,
        };
        let spec = self.usable(&name, spec)?;
        if let Some(cluster) = &mut self.cluster {
            cluster.read = Some(source);
        }
        Ok(spec)
    }

    fn keep_file(&mut self) {
        if let Some(cluster) = &mut self.cluster
            && let Some(read) = cluster.read.take()
        {
            cluster.file = read;
        }
    }

    fn combine(&mut self, services: Services<'_>) -> Result<Spec, Problem> {
        let absent = || Problem::new(ProblemKind::NotFound, "the configuration has no [cluster]");
        let cluster = self.cluster.as_ref().ok_or_else(absent)?;
        let spec = cluster.file.parse_with(services, &addresses()?);
        let spec = spec.map_err(|mistakes| has_errors(services.name, &mistakes))?;
        self.usable(services.name, spec)
    }

    fn idle_services(&mut self, in_force: &Spec) -> Vec<String> {
        let own = self.cluster.as_ref().and_then(|it| it.file.parse(&BTreeSet::new()).ok());
        let own = own.into_iter().flat_map(|spec| spec.services);
        let is_idle = |own: &Shared<Service>| !in_force.services.contains(own);
        own.filter(is_idle).map(|it| it.name.clone()).collect()
    }

    fn save_overlay(&mut self, overlay: &Overlay) -> anyhow::Result<()> {
        self.store.save(overlay).context("cannot save the change for the next start")
    }

    fn save_roles(&mut self, memory: &RoleMemory) -> anyhow::Result<()> {
        role_store::save(self.store.directory(), memory).context("cannot save the roles for the next start")
    }

    fn save_drained(&mut self, is_drained: bool) -> anyhow::Result<()> {
        drain_store::save(self.store.directory(), is_drained)
            .context("cannot save the change for the next start")
    }

    fn track(&mut self, value: i16) -> anyhow::Result<()> {
        let written = self.track_file.write(value);
        written.with_context(|| format!("cannot write the track file {}", self.track_file.path().display()))
    }

    fn placed(&mut self) -> anyhow::Result<Vec<Placed>> {
        announced_addresses::list(self.announce_device.as_deref())
    }

    fn announce(&mut self, address: IpAddr) -> anyhow::Result<()> {
        let device = self.announce_device.as_deref().context("there is no [announce]")?;
        announced_addresses::put(device, address)
    }

    fn withdraw(&mut self, address: &Placed) -> anyhow::Result<()> {
        announced_addresses::take(address)
    }

    fn group(&self) -> Option<Arc<GroupStatus>> {
        self.group.as_ref().map(|group| Arc::clone(&group.status.borrow()))
    }

    fn share(&mut self, view: View) {
        if let Some(group) = &self.group {
            group.view.send_replace(Arc::new(view));
        }
    }

    fn cluster(&self) -> Option<Arc<cluster::Status>> {
        self.cluster.as_ref().map(|it| Arc::clone(&it.status.borrow()))
    }

    fn write(&mut self, write: cluster::Write) -> Result<(), Problem> {
        let failed = || Problem::new(ProblemKind::Failed, "the exchange with etcd takes no writes");
        let cluster = self.cluster.as_ref().ok_or_else(failed)?;
        cluster.writes.try_send(write).map_err(|_full| failed())
    }

    fn report(&mut self, report: cluster::Report) {
        if let Some(cluster) = &self.cluster {
            cluster.report.send_replace(report);
        }
    }

    fn save_copy(&mut self, copy: &Copy) -> anyhow::Result<()> {
        copy::save(self.store.directory(), copy)
            .context("cannot save what is in force of the cluster for the next start")
    }

    fn attached(&mut self) -> anyhow::Result<Vec<Attached>> {
        (self.interfaces)()
    }

    fn addresses(&mut self) -> anyhow::Result<BTreeSet<IpAddr>> {
        preflight::host::addresses()
    }

    fn local_ports(&mut self) -> anyhow::Result<(u16, u16)> {
        preflight::host::local_ports()
    }
}

impl LocalHost {
    /// The files that are named can be used, and the hash key is read.
    fn usable(&self, name: &str, spec: Spec) -> Result<Spec, Problem> {
        let files = spec.unusable_files();
        if !files.is_empty() {
            let detail = format!("{name} was not applied: {}", files.join("; "));
            return Err(Problem::new(ProblemKind::InvalidConfiguration, detail));
        }
        let unusable = |error: KeyError| Problem::new(ProblemKind::InvalidConfiguration, error.to_string());
        let key = spec.read_hash_key(self.store.directory()).map_err(unusable)?;
        Ok(spec.with_hash_key(key))
    }
}

fn addresses() -> Result<BTreeSet<IpAddr>, Problem> {
    preflight::host::addresses().map_err(|error| Problem::new(ProblemKind::Failed, format!("{error:#}")))
}

fn has_errors(name: &str, mistakes: &Mistakes) -> Problem {
    Problem {
        kind: ProblemKind::InvalidConfiguration,
        detail: format!("{name} has errors and was not applied"),
        mistakes: mistakes.each(),
    }
}

impl fmt::Debug for LocalHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, store, track_file, announce_device, interfaces: _, group, cluster } = self;
        f.debug_struct("LocalHost")
            .field("config", config)
            .field("store", store)
            .field("track_file", track_file)
            .field("announce_device", announce_device)
            .field("group", group)
            .field("cluster", cluster)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_invalid_file_is_reported_with_all_its_mistakes() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("xlb.toml");
        fs::write(&config, "version = 1\nnonsense = true\n").unwrap();
        let mut host = local_host(&directory, config);

        let problem = host.read_spec(None).unwrap_err();

        assert_eq!(problem.kind, ProblemKind::InvalidConfiguration);
        assert!(problem.mistakes.iter().any(|mistake| mistake.contains("xlb.toml:2:1")), "{problem:?}");
    }

    #[test]
    fn a_backend_on_an_address_of_this_host_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("xlb.toml");
        let own =
            preflight::host::addresses().unwrap().into_iter().find(|it| it.is_ipv4() && !it.is_loopback());
        let Some(own) = own else { return eprintln!("not run: this host has no address") };
        let text = format!(
            "version = 1\n[[interface]]\nname = 'eth0'\n[[service]]\nname = 'web'\nmode = 'nat'\n\
             listen = ['192.0.2.10:80']\n[[service.backend]]\nname = 'web-1'\naddress = '{own}:80'\n"
        );
        fs::write(&config, text).unwrap();

        let problem = local_host(&directory, config).read_spec(None).unwrap_err();

        assert!(problem.mistakes[0].contains("it is an address of this host"), "{problem:?}");
    }

    /// The next start would refuse it.
    #[test]
    fn mistakes_in_services_that_are_not_in_force_are_reported() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("xlb.toml");
        let service = "[[service]]\nname = 'web'\nlisten = ['192.0.2.10:80']\nsource = ['10.0.0.1']\n\
                       [[service.backend]]\nname = 'web-1'\naddress = '10.0.0.11:80'\n";
        let node = "version = 1\n[[interface]]\nname = 'eth0'\n[cluster]\nnode = 'lb-1'\n\
                    endpoints = ['http://10.0.0.21:2379']\n";
        let document = Document { revision: cluster::Revision(7), text: format!("version = 1\n{service}") };
        let mut host = local_host(&directory, config.clone());

        fs::write(&config, format!("{node}{service}")).unwrap();
        host.read_spec(Some(&document)).unwrap();
        fs::write(&config, format!("{node}{}", service.replace(":80", ":0"))).unwrap();
        let problem = host.read_spec(Some(&document)).unwrap_err();

        assert!(problem.mistakes[0].contains("xlb.toml:"), "{problem:?}");
    }

    #[test]
    fn the_loopback_address_is_among_the_hosts_own() {
        let directory = tempfile::tempdir().unwrap();
        let mut host = local_host(&directory, directory.path().join("xlb.toml"));

        assert!(host.addresses().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
    }

    fn local_host(directory: &tempfile::TempDir, config: PathBuf) -> LocalHost {
        LocalHost {
            config,
            store: Store::new(directory.path()),
            track_file: TrackFile::beside(&directory.path().join("xlb.sock")),
            announce_device: None,
            interfaces: Box::new(|| Ok(Vec::new())),
            group: None,
            cluster: None,
        }
    }
}
