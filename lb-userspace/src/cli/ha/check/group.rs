//! Do the nodes of the group share their flows, and agree about them?

use super::{Facts, Finding, Judgement};
use crate::{
    cli::group::{SHARED_PORTS, wrong_clock},
    group::skip::Skip,
    named::Named as _,
    text::counted,
    view::{Group, GroupPeer},
};

/// Reasons that come from the files of the nodes. Others are part of normal operation.
const MISMATCHES: [Skip; 3] = [Skip::OtherSource, Skip::UnknownService, Skip::UnknownBackend];

pub fn configured(facts: &Facts) -> Judgement {
    match (&facts.spec.group, facts.spec.announce.is_some(), &facts.status) {
        // What this means for several active nodes is the subject of `ecmp`.
        (None, true, _) => Judgement::Silent,
        (None, false, _) => Judgement::Found(vec![Finding::warning(
            "the file has no [group]: established connections end when the addresses move",
            "add [group] with the other node, and restart xlb (traffic keeps flowing)",
        )]),
        (Some(_), _, Ok(status)) if status.group.is_none() => Judgement::Found(vec![Finding::warning(
            "the file has a [group], and the running daemon has none: it shares no flows",
            "restart xlb (traffic keeps flowing)",
        )]),
        (Some(group), ..) => {
            let peers = counted(group.peers.len() as u64, "peer");
            Judgement::Passed(format!("this node is {}, with {peers}", group.node))
        }
    }
}

pub fn connected(facts: &Facts) -> Judgement {
    each_peer(facts, "flows go both ways, and all have arrived", |peer| {
        let node = &peer.node;
        let finding = |message: String| Finding::warning(message, "see `xlb group status` on both nodes");
        if !peer.receiving {
            let failure = peer.failure.as_ref().map_or_else(String::new, |it| format!(": {it}"));
            return Some(finding(format!("the flows of {node} do not come to this node{failure}")));
        }
        if !peer.sending {
            return Some(finding(format!("{node} has not connected to this node, and gets no flows")));
        }
        let message = format!("not all flows of {node} have arrived yet: those that lack would end");
        (!peer.complete).then(|| Finding::warning(message, "run this again in a minute"))
    })
}

pub fn same_services(facts: &Facts) -> Judgement {
    each_peer(facts, "the same on all nodes", |peer| {
        let names: Vec<&str> = peer.services_differing.iter().flatten().map(String::as_str).collect();
        let message = format!("{} has another definition of {}", peer.node, names.join(", "));
        let hint = "use the same services on all nodes: flows of others are skipped";
        (!names.is_empty()).then(|| Finding::warning(message, hint))
    })
}

pub fn same_hash_key(facts: &Facts) -> Judgement {
    let hashing = facts.spec.services.iter().find(|service| service.scheduler.hashes());
    let Some(service) = hashing else { return Judgement::Passed("no service hashes".to_owned()) };
    let hint = "give all nodes the same file as `[hash] key_file`";
    if facts.spec.hash.key_file.is_none() {
        let (name, scheduler) = (&service.name, service.scheduler.name());
        let message = format!(
            "service {name} ({scheduler}) hashes with a key that this node has made for itself: others choose other \
             backends for new flows"
        );
        return Judgement::Found(vec![Finding::warning(message, hint)]);
    }
    each_peer(facts, "the same on all nodes", |peer| {
        let message = format!("that of {} differs: it chooses other backends for new flows", peer.node);
        (peer.same_hash_key == Some(false)).then(|| Finding::warning(message, hint))
    })
}

pub fn other_ports(facts: &Facts) -> Judgement {
    each_peer(facts, "no node uses those of another one", |peer| {
        let hint = "set the same range on all hosts, and name the same nodes in all files";
        let message = || format!("{}: {SHARED_PORTS}", peer.node);
        (peer.source_ports_overlap == Some(true)).then(|| Finding::warning(message(), hint))
    })
}

pub fn same_clock(facts: &Facts) -> Judgement {
    each_peer(facts, "less than a second apart", |peer| {
        let clock = wrong_clock(peer)?;
        let message = format!(
            "{}: {clock}: certificates expire at other times, and logs are hard to compare",
            peer.node
        );
        Some(Finding::warning(message, "let all nodes follow NTP servers (`timedatectl`)"))
    })
}

pub fn takes_flows(facts: &Facts) -> Judgement {
    each_peer(facts, "none because of the configuration", |peer| {
        let count = |skip: Skip| peer.flows_skipped_total.get(skip.name()).copied().unwrap_or_default();
        let skipped = MISMATCHES.into_iter().filter(|skip| count(*skip) > 0);
        let skipped: Vec<String> = skipped.map(|skip| format!("{} ({})", count(skip), skip.name())).collect();
        let message = format!(
            "since the daemon started, it could not take flows of {}: {}; a take-over ends such flows",
            peer.node,
            skipped.join(", ")
        );
        let hint = "compare sources, services and backends of both files";
        (!skipped.is_empty()).then(|| Finding::warning(message, hint))
    })
}

/// What is found of each peer. Silent without a group that is known.
fn each_peer(facts: &Facts, otherwise: &str, look: impl Fn(&GroupPeer) -> Option<Finding>) -> Judgement {
    let Some(Group { peers, .. }) = facts.group() else { return Judgement::Silent };
    Judgement::of(peers.iter().filter_map(look).collect(), otherwise)
}
