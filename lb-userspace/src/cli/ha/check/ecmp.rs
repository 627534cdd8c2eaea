//! With several active nodes: what becomes of flows that the router sends to another node?
//!
//! When a node leaves, plain ECMP moves flows of nodes that stay, too: in a trial with Linux and three nodes, half of the
//! flows of one of them. A node that has the flows of the others continues them.

use std::net::IpAddr;

use lb_common::service::Mode;

use super::{Facts, Finding, Judgement};
use crate::spec::{Service, rules::Family};

const RESILIENT: &str = "let the router use resilient (consistent) hashing";

pub fn shared(facts: &Facts) -> Judgement {
    match (&facts.spec.announce, &facts.spec.group) {
        (None, _) => Judgement::Passed("one node is active: the file has no [announce]".to_owned()),
        (Some(_), Some(_)) => Judgement::Passed("the nodes share their flows".to_owned()),
        (Some(_), None) => Judgement::Found(vec![Finding::error(
            "[announce] without [group]: when a node leaves or comes, plain ECMP at the router sends flows of other nodes \
             elsewhere, where they end",
            format!("share the flows with [group], or {RESILIENT}"),
        )]),
    }
}

/// Replies must return to the node that began the flow, and to another one once that is gone.
pub fn of_peers(facts: &Facts) -> Judgement {
    if facts.spec.announce.is_none() || facts.spec.group.is_none() {
        return Judgement::Silent;
    }
    let full_nat = facts.spec.services.iter().filter(|service| service.mode == Mode::FullNat);
    let lacks = |service: &Service, family| {
        let is_of = |it: &IpAddr| Family::of(*it) == family;
        service.sources.iter().any(is_of) && !service.peer_sources.iter().any(is_of)
    };
    let missing = full_nat.flat_map(|service| Family::ALL.map(|family| (service, family)));
    let findings = missing.filter(|(service, family)| lacks(service, *family)).map(|(service, family)| {
        let message = format!(
            "service {} has no {family} source of another node: several active nodes must send from different sources, and \
             know those of the others, or connections end when a node leaves or comes",
            service.name
        );
        let hint = "list the sources of all nodes in `source` of the service, and those of a peer in `source` of its \
                    [[group.peer]]";
        Finding::warning(message, hint)
    });
    Judgement::of(findings.collect(), "each full-nat service has those of other nodes")
}
