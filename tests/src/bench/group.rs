//! Two nodes of a group under load: how late the standby is, what the daemons cost, and how long a node that joins takes to get a
//! million flows. Programs, daemons and TLS between them are those of operation.

mod traffic;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_common::{net::Protocol, service::Mode};
use nix::unistd::Pid;
use serde_json::Value;

use self::traffic::Traffic;
use super::{
    balancer::{ROUTES, US},
    report::{Goal, Table},
};
use crate::lab::{
    Config, Family, Lab,
    config::{Limits, Service},
    eventually,
    nodes::{Node, Nodes},
    process::{cpu_time_of, peak_memory_of},
    web,
};

/// New flows in a second. Each is closed after its lifetime.
const RATE: u32 = 30_000;
const LIFETIME: Duration = Duration::from_secs(10);
/// Flows that a node gets when it joins, and room for them: the table is half full.
const SNAPSHOT: u32 = 1_000_000;
const ROOM: u32 = 2_000_000;
/// New flows in a second before it joins, and meanwhile.
const RATE_BEFORE: u32 = 100_000;
const RATE_MEANWHILE: u32 = 5_000;
/// Interval between two looks at the status.
const LOOK: Duration = Duration::from_millis(250);
/// Time limit of what is awaited.
const LIMIT: Duration = Duration::from_secs(60);

/// The age of what the peer has not acknowledged, in seconds.
const LAG: Goal = Goal::AtMost(1.0);
/// CPUs that a daemon uses.
const CPUS: Goal = Goal::AtMost(1.0);
/// The time until a node that joins has all flows, in seconds.
const JOINING: Goal = Goal::AtMost(10.0);

/// Keeps up the load for this time, then lets a node join.
pub fn measure(load: Duration) -> Result<Vec<Table>> {
    let lab = Nodes::network("groupload", Mode::Nat)?;
    let _servers = lab.web_servers()?;
    let mac = US.to_bytes().map(|byte| format!("{byte:02x}")).join(":");
    lab.xlb.ip(&format!("link set eth0 address {mac}\n"))?;
    let config = config(&lab);
    let mut pair = Nodes::start(lab, &config)?;
    let nodes = pair.nodes.as_mut_slice();
    let active = nodes[0].namespace.clone();
    active.ip(ROUTES)?;
    active.inside(|| {
        let title = "two nodes of a group; CPUs and peak memory: of the daemon";
        let mut table = Table::new(title, &["seconds", "CPUs", "peak MiB"], 3);
        let mut traffic = Traffic::new(&active, config.services[0].backends[0].address)?;
        under_load(nodes, &mut traffic, load, &mut table)?;
        joining(nodes, &mut traffic, &mut table)?;
        Ok(vec![table])
    })
}

/// One backend: it is known beforehand which packets answer.
fn config(lab: &Lab) -> Config {
    let mut service = Service::over(lab, "web", Protocol::Tcp, Mode::Nat, 80, web::PORT).only(Family::V4);
    service.backends.truncate(1);
    // An answer would shorten the frame, and the wrapper runs all others in the same one.
    service.keys = vec!["reject = \"drop\""];
    Config::new(lab).service(service).limits(Limits::of_flows(ROOM, 65_536, 262_144))
}

fn under_load(nodes: &[Node], traffic: &mut Traffic, load: Duration, table: &mut Table) -> Result<()> {
    eprintln!("bench: group, {RATE} new flows/s for {load:?}");
    let [active, standby] = [&nodes[0], &nodes[1]];
    let pids = [active.xlb.pid()?, standby.xlb.pid()?];
    let cpu_times = || -> Result<[Duration; 2]> { Ok([cpu_time_of(pids[0])?, cpu_time_of(pids[1])?]) };
    let (before, begun) = (cpu_times()?, Instant::now());
    let lag = std::thread::scope(|scope| {
        let watching = scope.spawn(|| highest_lag(active, begun + load));
        traffic.pass(RATE, load, LIFETIME)?;
        watching.join().map_err(|_| anyhow::anyhow!("the other thread panicked"))?
    })?;
    let (after, took) = (cpu_times()?, begun.elapsed());

    let ended = Instant::now();
    wait_until_it_holds(standby, open_flows(active, traffic)?)?;
    let rows = [
        ("lag of the peer, at most", lag),
        ("until it has just the open flows", ended.elapsed().as_secs_f64()),
    ];
    for (name, seconds) in rows {
        table.row(format!("{RATE} new flows/s: {name}"), [Some(seconds), None, None]);
        table.goal("seconds", LAG);
    }
    for (node, name) in ["active", "standby"].into_iter().enumerate() {
        let cpus = (after[node] - before[node]).as_secs_f64() / took.as_secs_f64();
        table
            .row(format!("{RATE} new flows/s: {name} node"), [None, Some(cpus), Some(peak_mib(pids[node])?)]);
        table.goal("CPUs", CPUS);
    }
    let resyncs = active.peer()?["resyncs_total"].as_u64().context("no count of resyncs")?;
    ensure!(resyncs == 0, "the peer was behind {resyncs} times");
    Ok(())
}

/// Until then.
fn highest_lag(node: &Node, end: Instant) -> Result<f64> {
    let mut highest: f64 = 0.0;
    while Instant::now() < end {
        highest = highest.max(node.peer()?["lag_seconds"].as_f64().context("no lag")?);
        std::thread::sleep(LOOK);
    }
    Ok(highest)
}

/// A node with empty tables starts while there are new flows.
fn joining(nodes: &mut [Node], traffic: &mut Traffic, table: &mut Table) -> Result<()> {
    eprintln!("bench: group, a node joins and gets {SNAPSHOT} flows");
    traffic.open_until(SNAPSHOT, RATE_BEFORE)?;
    let standby = &mut nodes[1].xlb;
    standby.run(&["detach"])?;
    standby.wait()?;
    let begun = Instant::now();
    standby.launch()?;
    let standby = &nodes[1];
    let took = traffic.open_while(RATE_MEANWHILE, || {
        eventually(LIMIT, "the node has learned all flows", || {
            let status = standby.xlb.output(&["group", "status", "-o", "json"])?;
            let said: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
            Ok(said["learning"] == false && said["peers"][0]["complete"] == true)
        })?;
        Ok(begun.elapsed().as_secs_f64())
    })?;
    wait_until_it_holds(standby, open_flows(&nodes[0], traffic)?)?;
    let peak = peak_mib(standby.xlb.pid()?)?;
    table.row(format!("a node starts, and gets {SNAPSHOT} flows"), [Some(took), None, Some(peak)]);
    table.goal("seconds", JOINING);
    Ok(())
}

/// What the active node counts. A few flows have found their buckets full.
fn open_flows(active: &Node, traffic: &Traffic) -> Result<u64> {
    let flows = active.xlb.json(&["backend", "list"])?[0]["flows"].as_u64().context("no count of flows")?;
    ensure!(
        flows <= traffic.open() && flows * 100 >= traffic.open() * 98,
        "{flows} of {} flows",
        traffic.open()
    );
    Ok(flows)
}

fn wait_until_it_holds(node: &Node, flows: u64) -> Result<()> {
    let waited = eventually(LIMIT, &format!("{} holds {flows} flows of its peer", node.name), || {
        let held = node.peer()?["flows_held"].as_u64().context("no count of flows")?;
        Ok(held.abs_diff(flows) * 1000 <= flows)
    });
    waited.map(drop).with_context(|| format!("{}", node.peer().unwrap_or_default()))
}

fn peak_mib(daemon: Pid) -> Result<f64> {
    Ok(peak_memory_of(daemon)? as f64 / f64::from(1 << 20))
}
