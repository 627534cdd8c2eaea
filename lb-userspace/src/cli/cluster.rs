//! `xlb cluster`: what the nodes of a fleet have in common.

use super::{
    args::ClusterVerb,
    console::Console,
    failure::Failure,
    table::{Table, Tone},
    units,
};
use crate::{
    api::client::Client,
    cluster::Revision,
    spec,
    text::visible,
    view::{Cluster, ClusterNode, ClusterPart, ClusterPush},
};

pub async fn cluster(console: &mut Console<'_>, client: &Client, verb: ClusterVerb) -> Result<(), Failure> {
    match verb {
        ClusterVerb::Status => status(console, client).await,
        ClusterVerb::Pull => pull(console, client).await,
        ClusterVerb::Push { file, base } => {
            let file = file.unwrap_or_default();
            let source = spec::read_source(&file).map_err(|mistakes| Failure::invalid(&file, mistakes))?;
            let file = file.display().to_string();
            let push = ClusterPush { file, text: source.text().to_owned(), base: base.map(Revision) };
            store(console, client, push).await
        }
    }
}

async fn status(console: &mut Console<'_>, client: &Client) -> Result<(), Failure> {
    let cluster = client.cluster().await?;
    if console.is_json() {
        return console.json(&cluster);
    }
    console.facts(&facts(&cluster))?;
    console.line("")?;
    console.table(table(&cluster))?;
    console.section("to look at:", &remarks(&cluster))
}

async fn pull(console: &mut Console<'_>, client: &Client) -> Result<(), Failure> {
    let document = client.cluster_document().await?;
    if !document.connected {
        let revision = document.revision;
        console.say(&format!("etcd is away: this is revision {revision}, which this node read last"))?;
    }
    if console.is_json() {
        return console.json(&document);
    }
    // As it is stored, but for what could control a terminal.
    let shown = |c: char| if c == '\t' { c } else { visible(c) };
    document.text.lines().try_for_each(|line| console.line(&line.chars().map(shown).collect::<String>()))
}

async fn store(console: &mut Console<'_>, client: &Client, push: ClusterPush) -> Result<(), Failure> {
    let pushed = client.push(&push).await?;
    for change in &pushed.changes {
        console.say(change)?;
    }
    for warning in &pushed.warnings {
        console.say(&format!("warning: {warning}"))?;
    }
    console.say(&format!("stored as revision {}, and in force on this node", pushed.revision))?;
    console.say(&format!("keep this as the first line of the file: {}", pushed.first_line))?;
    if console.is_json() { console.json(&pushed) } else { Ok(()) }
}

/// One line of `xlb status`.
pub fn summary(cluster: &Cluster) -> String {
    let current = cluster.nodes.iter().filter(|node| node.current).count();
    let state = if cluster.connected { "connected" } else { "etcd is away" };
    let services = match cluster.document.in_force {
        Some(revision) => format!("revision {revision}"),
        None => "the services of the file".to_owned(),
    };
    format!("{}, {services}, {state}, {current} of {} nodes current", cluster.node, cluster.nodes.len())
}

fn facts(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let age = units::age(cluster.since_seconds);
    let etcd = match (cluster.connected, &cluster.failure) {
        (true, _) => {
            let endpoint = cluster.endpoint.as_deref().unwrap_or("etcd");
            format!("connected to {endpoint} for {age}")
        }
        (false, Some(why)) => format!("not connected for {age}: {why}"),
        (false, None) => "not connected yet".to_owned(),
    };
    let by = match (&cluster.stored_by, cluster.stored_seconds_ago) {
        (Some(node), Some(seconds)) => format!(", stored by {node} {} ago", units::age(seconds)),
        (Some(_) | None, _) => String::new(),
    };
    vec![
        ("node", cluster.node.clone()),
        ("etcd", etcd),
        ("services", format!("{}{by}", part(cluster.document, "those of this node's file"))),
        ("changes", part(cluster.changes, "those of this node")),
    ]
}

fn part(part: ClusterPart, own: &str) -> String {
    match (part.in_force, part.stored) {
        (Some(in_force), Some(stored)) if in_force == stored => format!("revision {stored}"),
        (Some(in_force), Some(stored)) => format!("revision {in_force} (stored: {stored})"),
        (Some(in_force), None) => format!("revision {in_force} (deleted from etcd)"),
        (None, Some(stored)) => format!("{own} (stored: {stored})"),
        (None, None) => format!("{own} (nothing is stored)"),
    }
}

fn table(cluster: &Cluster) -> Table {
    let mut table = Table::new(&["NODE", "SERVICES", "CHANGES", "CURRENT", "HEALTHY", "VERSION"]);
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let revision = |it: Option<Revision>| it.map_or_else(|| "-".to_owned(), |it| it.to_string());
    for node in &cluster.nodes {
        let cells = [
            node.node.clone(),
            revision(node.document),
            revision(node.changes),
            yes(node.current),
            yes(node.healthy),
            node.version.clone(),
        ];
        table.row(tone(node), cells);
    }
    table
}

const fn tone(node: &ClusterNode) -> Tone {
    match (node.healthy, node.current) {
        (false, _) => Tone::Alarm,
        (true, false) => Tone::Warning,
        (true, true) => Tone::Plain,
    }
}

/// What an operator may want to do something about.
fn remarks(cluster: &Cluster) -> Vec<String> {
    let refused = cluster.refused.iter().map(|why| format!("what is stored is not in force here: {why}"));
    let idle = Some(cluster.services_not_in_force.join(", ")).filter(|it| !it.is_empty());
    let idle = idle.map(|it| {
        format!("services of this node's file that are not in force: {it} (the cluster has others)")
    });
    let away = (!cluster.connected).then(|| "the nodes are as they were when etcd was read last".to_owned());
    let nodes =
        cluster.nodes.iter().flat_map(|it| it.reasons.iter().map(|why| format!("{}: {why}", it.node)));
    refused.chain(idle).chain(away).chain(nodes).collect()
}
