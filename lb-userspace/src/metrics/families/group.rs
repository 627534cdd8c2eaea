//! Families of the group, which a node without `[group]` does not have.

use super::{super::Input, Family, truth};
use crate::group::status::PeerStatus;

type Count = (&'static str, &'static str, fn(&PeerStatus) -> u64);
type Value = (&'static str, &'static str, fn(&PeerStatus) -> f64);

const COUNTS: [Count; 4] = [
    ("xlb_group_flows_sent_total", "Flows sent to the peer, with each repetition.", |peer| peer.sent),
    ("xlb_group_flows_received_total", "Flows received from the peer, with each repetition.", |peer| {
        peer.received
    }),
    (
        "xlb_group_peer_flows_computed_total",
        "Flows not sent to the peer because it computes their backends, with each repetition.",
        |peer| peer.computed,
    ),
    (
        "xlb_group_resyncs_total",
        "How often the peer was too slow for the flows of this node, and got all of them again.",
        |peer| peer.resyncs,
    ),
];

const VALUES: [Value; 3] = [
    ("xlb_group_peer_connected", "1 if flows go both ways between this node and the peer.", |peer| {
        truth(peer.is_connected && peer.is_subscribed)
    }),
    ("xlb_group_flows_held", "Flows of the peer that this node holds.", |peer| peer.held as f64),
    (
        "xlb_group_lag_seconds",
        "Age of the oldest flow that was sent to the peer and that it has not acknowledged.",
        |peer| peer.lag.as_secs_f64(),
    ),
];

pub fn families(input: &Input) -> Vec<Family> {
    let Some(group) = &input.group else { return Vec::new() };
    let peers = || group.peers.iter();
    let mut families = Vec::new();
    for (name, help, value) in VALUES {
        let mut family = Family::gauge(name, help);
        peers().for_each(|peer| family.set(&[("peer", &peer.node)], value(peer)));
        families.push(family);
    }
    for (name, help, count) in COUNTS {
        let mut family = Family::counter(name, help);
        peers().for_each(|peer| family.count(&[("peer", &peer.node)], count(peer)));
        families.push(family);
    }
    let mut skipped = Family::counter(
        "xlb_group_flows_skipped_total",
        "Flows of the peer that this node could not take, by reason.",
    );
    for peer in peers() {
        for (reason, count) in &peer.skipped {
            skipped.count(&[("peer", &peer.node), ("reason", reason)], *count);
        }
    }
    let mut lost = Family::counter(
        "xlb_group_events_lost_total",
        "Events of flows that this node lost because there were too many at once.",
    );
    lost.count(&[], group.events_lost);
    let mut refused = Family::counter(
        "xlb_group_connections_refused_total",
        "Connections to this node that it refused: without a certificate of a peer, without a hello, or too many at once.",
    );
    refused.count(&[], group.refused);
    families.extend([skipped, lost, refused]);
    families
}
