//! What demo, bench and the tests in namespaces run.

use super::{Cure, Need};
use crate::command;

/// Program, its Debian package, what it is for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("ip", "iproute2", "makes the lab's namespaces and links"),
    ("ethtool", "ethtool", "sets offloads of the lab's links"),
    ("nginx", "nginx-light", "the lab's web servers"),
    ("curl", "curl", "the lab's client"),
    ("wrk", "wrk", "load from the lab's client"),
    ("nft", "nftables", "bench compares with it"),
    ("haproxy", "haproxy", "bench compares with it"),
    ("promtool", "prometheus", "tests check the metrics with it"),
];

pub fn needs() -> Vec<Need> {
    let need = |&(program, package, reason)| Need {
        what: program,
        reason,
        is_met: command::find(program).is_some(),
        cure: Cure::Package(package),
    };
    PROGRAMS.iter().map(need).collect()
}
