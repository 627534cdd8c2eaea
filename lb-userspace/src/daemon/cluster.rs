//! A start as a node of a cluster: the services of its copy, and the exchange with etcd.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::failure::Failure,
    cluster::{
        self, Report, Status,
        copy::{self, Copy},
        exchange::{self, Ports, WRITES},
    },
    controller::local_host::ClusterLink,
    event::Event,
    exit::Exit,
    spec::{Cluster, Services, Source, Spec, overlay::Overlay, store},
};

/// The configuration at start.
pub struct Configuration {
    /// With the services of the copy, if there are any.
    pub spec: Spec,
    /// `None`: there is no `[cluster]`.
    pub cluster: Option<(Source, Copy)>,
}

impl Configuration {
    /// Of a file that was read, with what this node has kept in the state directory.
    pub fn of(
        file: &Path,
        source: Source,
        spec: Spec,
        host: &BTreeSet<IpAddr>,
        state: &Path,
    ) -> Result<Self, Failure> {
        if spec.cluster.is_none() {
            return Ok(Self { spec, cluster: None });
        }
        let copy = copy::load(state).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        let Some(document) = &copy.document else {
            return Ok(Self { spec, cluster: Some((source, copy)) });
        };
        let name = format!("cluster revision {} in {}", document.revision, state.join(copy::NAME).display());
        let services = Services { name: &name, text: &document.text };
        let spec = source
            .parse_with(services, host)
            .map_err(|mistakes| Failure::invalid(file, mistakes).hint(hint(state)))?;
        Ok(Self { spec, cluster: Some((source, copy)) })
    }

    /// The changes of commands in the copy. `None`: those of this node are in force.
    pub fn overlay(&self) -> Result<Option<Overlay>, Failure> {
        let changes = self.cluster.as_ref().and_then(|(_, copy)| copy.changes.as_ref());
        let read = changes.map(|it| store::decode(it.json.as_bytes())).transpose();
        read.map_err(|why| {
            let message = format!("{}: the changes of the cluster: {why}", copy::NAME);
            let hint = "move it away to start with the services of the file and this node's own changes until etcd is read";
            Failure::new(Exit::Failed, message).hint(hint)
        })
    }
}

/// What to do if the services of the copy do not fit.
pub fn hint(state: &Path) -> String {
    format!(
        "the services are those of the cluster, in {}: correct this node's file, or move that copy away, to start with the services of \
         the file until etcd is read",
        state.join(copy::NAME).display()
    )
}

/// Why the files of `[cluster]` cannot be used.
pub fn check_files(cluster: &Cluster) -> Result<(), Failure> {
    cluster::check_files(cluster).map_err(|why| Failure::new(Exit::InvalidConfiguration, why))
}

/// Starts the exchange with etcd.
pub fn join(
    cluster: &Cluster,
    file: Source,
    events: &mpsc::Sender<Event>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> ClusterLink {
    let (writes, inbox) = mpsc::channel(WRITES);
    let (to_status, status) = watch::channel(Arc::<Status>::default());
    let (report, reported) = watch::channel(Report::default());
    let ports = Ports { events: events.clone(), writes: inbox, report: reported, status: to_status };
    tasks.spawn(exchange::run(cluster.clone(), ports, stop.clone()));
    ClusterLink { status, report, writes, file, read: None }
}

/// The state directory's copy, for commands without a daemon. An unreadable one is as none: the daemon reports it.
pub fn in_force(file: &Path, source: Source, spec: &Spec, state: PathBuf) -> Option<Spec> {
    let known = Configuration::of(file, source, spec.clone(), &BTreeSet::new(), &state).ok()?;
    known.cluster.filter(|(_, copy)| copy.document.is_some()).map(|_| known.spec)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        cluster::{Document, Revision},
        spec,
    };

    #[test]
    fn a_copy_that_does_not_fit_is_named_with_both_ways_out() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("xlb.toml");
        let node = "version = 1\n[[interface]]\nname = 'eth0'\n[cluster]\nnode = 'lb-1'\n\
                    endpoints = ['http://10.0.0.21:2379']\n";
        fs::write(&file, node).unwrap();
        let document = Document { revision: Revision(7), text: "version = 2\n".to_owned() };
        copy::save(directory.path(), &Copy { document: Some(document), ..Copy::default() }).unwrap();
        let source = spec::read_source(&file).unwrap();
        let spec = source.parse(&BTreeSet::new()).unwrap();

        let failed = Configuration::of(&file, source, spec, &BTreeSet::new(), directory.path());

        let failure = failed.err().unwrap();
        let hint = failure.remedy().unwrap();
        assert!(hint.contains("cluster.json") && hint.contains("correct this node's file"), "{hint}");
        assert!(hint.contains("move that copy away"), "{hint}");
    }
}
