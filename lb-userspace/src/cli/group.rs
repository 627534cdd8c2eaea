//! `xlb group`: the nodes that share their flows.

use super::{
    args::GroupVerb,
    console::Console,
    failure::Failure,
    table::{Table, Tone},
    units,
};
use crate::{
    api::client::Client,
    text::counted,
    view::{Group, GroupPeer},
};

/// A clock that differs by less does no harm: it is only shown.
const CLOCK_MS: u64 = 1_000;

pub async fn group(console: &mut Console<'_>, client: &Client, verb: GroupVerb) -> Result<(), Failure> {
    match verb {
        GroupVerb::Status => {
            let group = client.group().await?;
            if console.is_json() {
                return console.json(&group);
            }
            console.facts(&facts(&group))?;
            console.line("")?;
            console.table(table(&group, console.is_wide()))?;
            console.section("to look at:", &group.peers.iter().flat_map(remarks).collect::<Vec<_>>())
        }
    }
}

/// One line of `xlb status`.
pub fn summary(group: &Group) -> String {
    let count = |is: fn(&GroupPeer) -> bool| group.peers.iter().filter(|peer| is(peer)).count();
    let mut summary = format!(
        "{}, {} of {} peers connected",
        group.node,
        count(GroupPeer::is_connected),
        group.peers.len()
    );
    let lagging = count(GroupPeer::is_lagging);
    if lagging > 0 {
        summary += &format!(", {lagging} lagging");
    }
    if group.quiet {
        summary += ", still learning flows";
    }
    summary
}

/// One line for each peer that is not connected.
pub fn lost(group: &Group) -> impl Iterator<Item = String> {
    let lost = group.peers.iter().filter(|peer| !peer.is_connected());
    lost.map(|peer| format!("peer {} is not connected", peer.node))
}

fn facts(group: &Group) -> Vec<(&'static str, String)> {
    let listen = group.listen.map_or_else(String::new, |listen| format!(", listens on {listen}"));
    let state = match (group.quiet, group.quiet_at_first) {
        (true, _) => "still learning flows: packets without a flow are not answered",
        (false, true) => "ready, but a peer is missing: packets without a flow are answered after 2.5 s",
        (false, false) => "ready",
    };
    vec![
        ("node", format!("{}{listen}", group.node)),
        ("state", state.to_owned()),
        ("source ports", format!("share {} of {}", group.port_share + 1, group.port_shares)),
        ("events lost", group.events_lost_total.to_string()),
        ("connections refused", group.connections_refused_total.to_string()),
    ]
}

fn table(group: &Group, is_wide: bool) -> Table {
    let mut header = vec!["PEER", "RECEIVING", "COMPLETE", "HELD", "SENDING", "LAG", "RESYNCS"];
    if is_wide {
        header.extend(["RECEIVED", "ENDED", "SKIPPED", "SENT", "COMPUTED", "ADDRESS"]);
    }
    let mut table = Table::new(&header);
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let dash = || "-".to_owned();
    for peer in &group.peers {
        let receiving = match peer.since_seconds {
            Some(seconds) => format!("{} for {}", yes(peer.receiving), units::age(seconds)),
            None => yes(peer.receiving),
        };
        let lag = if peer.sending { units::measured(peer.lag_seconds) } else { dash() };
        let mut cells = vec![
            peer.node.clone(),
            receiving,
            yes(peer.complete),
            peer.flows_held.to_string(),
            yes(peer.sending),
            lag,
            peer.resyncs_total.to_string(),
        ];
        if is_wide {
            let skipped: u64 = peer.flows_skipped_total.values().sum();
            let received = [peer.flows_received_total, peer.flows_ended_total, skipped];
            let sent = [peer.flows_sent_total, peer.flows_computed_total];
            cells.extend(received.iter().chain(&sent).map(u64::to_string));
            cells.push(peer.address.map_or_else(dash, |address| address.to_string()));
        }
        table.row(tone(peer), cells);
    }
    table
}

fn tone(peer: &GroupPeer) -> Tone {
    match (peer.is_connected(), peer.is_lagging() || !peer.complete) {
        (false, _) => Tone::Alarm,
        (true, true) => Tone::Warning,
        (true, false) => Tone::Plain,
    }
}

/// What an operator may want to do something about.
fn remarks(peer: &GroupPeer) -> Vec<String> {
    let node = &peer.node;
    let mut remarks = Vec::new();
    if let Some(failure) = peer.failure.as_ref().filter(|_| !peer.receiving) {
        remarks.push(format!("{node}: no connection to it: {failure}"));
    }
    if !peer.sending {
        remarks.push(format!("{node}: it has not connected to this node, and gets no flows"));
    }
    if let Some(differing) = peer.services_differing.as_ref().filter(|it| !it.is_empty()) {
        remarks.push(format!("{node}: services with another definition there: {}", differing.join(", ")));
    }
    if peer.same_hash_key == Some(false) {
        remarks.push(format!(
            "{node}: it has another hash key: there, source-hash and maglev choose other backends for new flows"
        ));
    }
    if peer.source_ports_overlap == Some(true) {
        remarks.push(format!("{node}: {SHARED_PORTS}"));
    }
    for (reason, count) in peer.flows_skipped_total.iter().filter(|(_, count)| **count > 0) {
        remarks.push(format!("{node}: {} skipped: {reason}", counted(*count, "flow")));
    }
    remarks.extend(wrong_clock(peer).map(|clock| format!("{node}: {clock}")));
    remarks
}

/// Two of its flows and of this node's may get the same source address and port.
pub const SHARED_PORTS: &str = "it uses source ports of this node: the net.ipv4.ip_local_port_range of the hosts, or the nodes in the \
                                files, differ";

/// "its clock is 2s ahead"
pub fn wrong_clock(peer: &GroupPeer) -> Option<String> {
    let ahead = peer.clock_difference_ms.filter(|ms| ms.unsigned_abs() >= CLOCK_MS)?;
    let by = units::measured(ahead.unsigned_abs() as f64 / 1000.0);
    let direction = if ahead > 0 { "ahead" } else { "behind" };
    Some(format!("its clock is {by} {direction}"))
}
