//! Families of the cluster, which a node without `[cluster]` does not have.

use super::{super::Input, Family, truth};

pub fn families(input: &Input) -> Vec<Family> {
    let Some(cluster) = &input.cluster else { return Vec::new() };
    let mut connected = Family::gauge(
        "xlb_cluster_connected",
        "1 if a majority of etcd's members has answered the last read.",
    );
    connected.set(&[], truth(cluster.connected));
    let mut current = Family::gauge(
        "xlb_cluster_current",
        "1 if this node runs what was stored in etcd when it was read last.",
    );
    current.set(&[], truth(cluster.is_current()));
    let mut revision = Family::gauge(
        "xlb_cluster_revision",
        "Revision in force, of the services and of the changes that commands made; 0: those of this node alone.",
    );
    for (part, it) in [("services", cluster.document), ("changes", cluster.changes)] {
        revision.set(&[("part", part)], it.in_force.map_or(0.0, |it| it.0 as f64));
    }
    vec![connected, current, revision]
}
