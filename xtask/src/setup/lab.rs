//! What makes the lab's networks, and what demo, bench and the lab's tests run in them.

use super::{Cure, Need};
use crate::command;

/// Program, its Debian package, what it is for.
type Program = (&'static str, &'static str, &'static str);

const NETWORK: &[Program] = &[
    ("ip", "iproute2", "makes the lab's namespaces and links"),
    ("ethtool", "ethtool", "sets offloads of the lab's links"),
];

const PROGRAMS: &[Program] = &[
    ("nginx", "nginx-light", "the lab's web servers"),
    ("curl", "curl", "the lab's client"),
    ("wrk", "wrk", "load from the lab's client"),
    ("nft", "nftables", "bench compares with it"),
    ("haproxy", "haproxy", "bench compares with it"),
    ("promtool", "prometheus", "tests check the metrics with it"),
];

/// Of namespaces and links alone. They are installed, never unpacked: the machine with the oldest kernel gets copies of
/// the host's.
pub fn network() -> Vec<Need> {
    all(NETWORK, Cure::Package)
}

/// Of what runs in them.
pub fn programs() -> Vec<Need> {
    all(PROGRAMS, Cure::PortablePackage)
}

fn all(programs: &[Program], cure: fn(&'static str) -> Cure) -> Vec<Need> {
    let need = |&(program, package, reason)| Need {
        what: program,
        reason,
        is_met: command::find(program).is_some(),
        cure: cure(package),
    };
    programs.iter().map(need).collect()
}
