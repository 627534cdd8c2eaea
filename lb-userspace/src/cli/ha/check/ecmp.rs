//! With several active nodes: what becomes of flows that the router sends to another node?
//!
//! When a node leaves, plain ECMP moves flows of nodes that stay, too: in a trial with Linux and three nodes, half of the
//! flows of one of them. A node that has the flows of the others continues them.

use lb_common::service::Mode;

use super::{Facts, Finding, Judgement, group::differing};
use crate::{group::skip::Skip, named::Named as _, view::GroupPeer};

const RESILIENT: &str = "let the router use resilient (consistent) hashing";

impl Facts {
    /// Replies must return to the node that has the flow: with full-nat, active nodes have different sources.
    pub fn has_sources_of_its_own(&self, service: &str) -> bool {
        let is_full_nat = |it: &str| {
            self.spec.services.iter().any(|service| service.name == it && service.mode == Mode::FullNat)
        };
        self.spec.announce.is_some() && is_full_nat(service)
    }
}

pub fn shared(facts: &Facts) -> Judgement {
    match (&facts.spec.announce, &facts.spec.group) {
        (None, _) => Judgement::Passed("one node is active: the file has no [announce]".to_owned()),
        (Some(_), Some(_)) => Judgement::Passed("the nodes share their flows".to_owned()),
        (Some(_), None) => Judgement::Found(vec![Finding::error(
            "[announce] without [group]: when a node leaves or comes, plain ECMP at the router sends flows of other nodes \
             elsewhere, where they end",
            format!("{RESILIENT}, or share flows of services in nat mode with [group]"),
        )]),
    }
}

pub fn same_sources(facts: &Facts) -> Judgement {
    if facts.spec.announce.is_none() {
        return Judgement::Silent;
    }
    let Some(group) = facts.group() else { return Judgement::Silent };
    let findings = group.peers.iter().filter_map(|peer| apart(facts, peer)).collect();
    Judgement::of(findings, "no sign of other sources on a peer")
}

/// Nodes do not tell each other their sources: a definition that differs, or flows that were skipped, show it.
fn apart(facts: &Facts, peer: &GroupPeer) -> Option<Finding> {
    let differing: Vec<&str> = differing(peer).filter(|name| facts.has_sources_of_its_own(name)).collect();
    let reason = Skip::OtherSource.name();
    let skipped = peer.flows_skipped_total.get(reason).copied().unwrap_or_default();
    if differing.is_empty() && skipped == 0 {
        return None;
    }
    let node = &peer.node;
    let services = match differing[..] {
        [] => String::new(),
        _ => format!(" (definitions that differ: {})", differing.join(", ")),
    };
    let message = format!(
        "flows of full-nat services{services} are not shared with {node}, if it has other sources: they are skipped as \
         {reason}, and plain ECMP at the router ends flows when a node leaves or comes"
    );
    Some(Finding::warning(message, format!("{RESILIENT}, or use nat mode")))
}
