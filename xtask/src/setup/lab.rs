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

/// Of namespaces and links alone.
pub fn network() -> Vec<Need> {
    all(NETWORK)
}

/// Of what runs in them.
pub fn programs() -> Vec<Need> {
    all(PROGRAMS)
}

fn all(programs: &[Program]) -> Vec<Need> {
    let need = |&(program, package, reason)| Need {
        what: program,
        reason,
        is_met: command::find(program).is_some(),
        cure: Cure::Package(package),
    };
    programs.iter().map(need).collect()
}
