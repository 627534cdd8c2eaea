//! Tools for the lab's networks, and programs that demo, bench and lab tests run in them.

use super::{Need, Remedy};
use crate::command;

/// A program, its Debian package, and what it is for.
type Program = (&'static str, &'static str, &'static str);

const NETWORK: &[Program] = &[
    ("ip", "iproute2", "creates the lab's namespaces and links"),
    ("ethtool", "ethtool", "sets offloads on the lab's links"),
];

const PROGRAMS: &[Program] = &[
    ("nginx", "nginx-light", "the lab's web servers"),
    ("mariadbd", "mariadb-server", "the lab's database servers"),
    ("redis-server", "redis-server", "the lab's Redis servers"),
    ("dnsmasq", "dnsmasq-base", "the lab's name server"),
    ("etcd", "etcd-server", "the lab's gRPC server, and its store of a cluster"),
    ("keepalived", "keepalived", "moves the addresses of the lab's balancer"),
    ("bird", "bird2", "announces the addresses of the lab's balancer, and is its router"),
    ("socat", "socat", "the lab's agent of health checks"),
    ("curl", "curl", "the lab's client"),
    ("wrk", "wrk", "load generator of the lab's client"),
    ("pg_ctlcluster", "postgresql", "the lab's database cluster"),
    ("nft", "nftables", "bench compares xlb with it"),
    ("haproxy", "haproxy", "bench compares xlb with it"),
    ("promtool", "prometheus", "tests check the metrics with it"),
    ("patch", "patch", "makes the builds that the lab upgrades to"),
    ("strace", "strace", "tests kill xlb at a system call with it"),
];

/// Tools for namespaces and links.
pub fn network() -> Vec<Need> {
    all(NETWORK)
}

/// Programs that run in the namespaces.
pub fn programs() -> Vec<Need> {
    all(PROGRAMS)
}

fn all(programs: &[Program]) -> Vec<Need> {
    let need = |&(program, package, reason)| Need {
        what: program,
        reason,
        is_met: command::find(program).is_some(),
        remedy: Remedy::PortablePackage(package),
    };
    programs.iter().map(need).collect()
}
