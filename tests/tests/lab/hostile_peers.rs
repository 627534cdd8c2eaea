//! Hosts in the place of a peer of a group: some cannot prove that they are the peer, others can, and lie.

mod impostor;
mod records;
mod scene;

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use impostor::{Manner, Then, papers};
use lb_userspace::group::wire::{Flow, Frame, Round};
use records::{CLOSED, OLD_MS, REMOVED, RESET_BY_CLIENT};
use scene::{CONNECTIONS, ECHO, SPARE, Scene};
use serde_json::Value;
use tests::lab::{
    Family,
    config::Group,
    eventually,
    nodes::Authority,
    process::{cpu_time_of, forget_peak_memory_of, peak_memory_of},
};

/// Records of flows that the node cannot have.
const RECORDS: u64 = 1_000_000;
/// More than the daemon may take for anything that a peer sends.
const MEMORY: u64 = 128 << 20;
/// Until the node connects, says why it does not, or has read what it was sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// From the end of a connection to the next one.
const PAUSE: Duration = Duration::from_millis(200);

#[test]
fn hosts_that_are_no_peer_or_send_no_frames_are_refused_and_harm_nothing() -> Result<()> {
    let scene = Scene::start("nopeer")?;
    let process = scene.node.xlb.pid()?;
    forget_peak_memory_of(process)?;
    let memory = peak_memory_of(process)?;

    scene.under_load(|| {
        let refused = strangers(&scene)?;
        babblers(&scene, refused)?;
        connects_again_and_again(&scene)
    })?;

    let more = peak_memory_of(process)? - memory;
    eprintln!("the daemon took at most {} KiB more", more / 1024);
    ensure!(more < MEMORY, "{more} bytes");
    scene.end_beside_a_true_peer(CONNECTIONS)
}

#[test]
fn a_peer_that_lies_harms_no_flow_but_those_that_it_may_end() -> Result<()> {
    let scene = Scene::start("liar")?;

    scene.under_load(|| {
        sends_what_cannot_be(&scene)?;
        tells_of_flows_of_others(&scene)?;
        ends_live_flows(&scene)?;
        claims_all_flows_and_forgets_them(&scene)
    })?;

    may_move_and_remove_flows(&scene)?;
    // Those that the peer has closed go on, and are not shared.
    scene.end_beside_a_true_peer(CONNECTIONS - CONNECTIONS / 4)
}

/// Hosts without a certificate of the peer, in both directions. Returns how many connections the node must have refused.
fn strangers(scene: &Scene) -> Result<u64> {
    let other = scene.lab.directory().join("other-ca");
    fs::create_dir(&other)?;
    let of = |[cert, key]: [_; 2]| papers(&Group { cert, key, ..scene.peer.clone() }, &scene.ca.file);
    let of_other_ca = of(Authority::new(&other)?.issue("lb-2")?);
    let of_other_node = of(scene.ca.issue("lb-3")?);
    let nothing = || Then::Bytes(Vec::new());
    let no_tls = Then::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec());
    let manners = [
        (Manner { papers: Some(of_other_ca), hello: Some("lb-2"), then: nothing() }, "from another CA"),
        (
            Manner { papers: Some(of_other_node), hello: Some("lb-2"), then: nothing() },
            "another name than lb-2",
        ),
        (Manner { papers: None, hello: None, then: no_tls }, "not TLS"),
    ];

    for (manner, words) in &manners {
        is_left(scene, manner, words)?;
        scene.impostor.connect(manner)?;
    }

    let log = scene.lab.log()?;
    ensure!(log.contains("connection to [group] refused"), "{log}");
    ensure!(!log.contains("peer connected") && !log.contains("peer subscribed"), "{log}");
    counts_refused(scene, manners.len() as u64)
}

/// Hosts with the certificate of the peer that do not send frames, in both directions.
fn babblers(scene: &Scene, mut refused: u64) -> Result<()> {
    let peer = Some("lb-2");
    let garbage = [&4_u32.to_be_bytes()[..], &[0xff; 4]].concat();
    let cut = [&1_000_u32.to_be_bytes()[..], &[0x12; 10]].concat();
    let many = impostor::framed(&Frame { flows: vec![Flow::default(); 3_000], ..Frame::default() })?;
    let cases = [
        (Some("lb-9"), Then::Bytes(Vec::new()), "it says that it is `lb-9`, not lb-2"),
        (None, Then::Bytes(b"GET / HTTP/1.1\r\n\r\n".to_vec()), "it sent a frame of 1195725856 bytes"),
        (peer, Then::Bytes(garbage), "it sent a frame that cannot be decoded"),
        (peer, Then::Bytes(vec![0xff; 4]), "it sent a frame of 4294967295 bytes, which is more than 65536"),
        (peer, Then::Bytes(many), "it sent a frame with more than 2048 flows and services"),
        (peer, Then::Cut(cut), "it closed the connection"),
        (peer, Then::Dripping(&[0, 0, 0xff, 0xff]), "silent for 3s"),
    ];

    for (hello, then, words) in cases {
        let manner = Manner { papers: Some(scene.papers()), hello, then };
        is_left(scene, &manner, words)?;
        scene.impostor.connect(&manner)?;
        if hello == peer {
            let is_it = |line: &str| line.contains("peer gets no flows of this node") && line.contains(words);
            eventually(PATIENCE, words, || Ok(scene.lab.log()?.lines().any(is_it)))?;
        } else {
            refused += 1;
        }
    }

    counts_refused(scene, refused).map(drop)
}

/// A host with the certificate of the peer that connects as often as it can: it is served, and logged, no more often
/// than a peer connects.
fn connects_again_and_again(scene: &Scene) -> Result<()> {
    const ENOUGH: u32 = 200;
    let served = || Ok(scene.lab.log()?.matches("peer subscribed to the flows of this node").count());
    let manner = Manner { papers: Some(scene.papers()), hello: Some("lb-2"), then: Then::Cut(Vec::new()) };
    let (before, begun): (Result<usize>, _) = (served(), Instant::now());

    for _ in 0..ENOUGH {
        scene.impostor.connect(&manner)?;
    }

    let most = 2 + begun.elapsed().as_millis() / PAUSE.as_millis();
    let lines = served()? - before?;
    eprintln!("{ENOUGH} connections in {:?}: {lines} were served", begun.elapsed());
    ensure!((1..=most).contains(&(lines as u128)), "{lines} lines, not {most}");
    Ok(())
}

/// The node connects to this host, says why it has left it, takes nothing from it, and connects again after a pause.
fn is_left(scene: &Scene, manner: &Manner, words: &str) -> Result<()> {
    let (_server, connections) = scene.impostor.wait(manner.clone())?;
    let came = || connections.recv_timeout(PATIENCE).with_context(|| format!("after `{words}`"));
    let [first, second] = [came()?, came()?];
    ensure!(second - first >= PAUSE, "{words}: it connects again after {:?}", second - first);
    let mut peer = Value::Null;
    let says = eventually(PATIENCE, words, || {
        peer = scene.node.peer()?;
        Ok(peer["failure"].as_str().is_some_and(|failure| failure.contains(words)))
    });
    says.with_context(|| peer.to_string())?;
    ensure!(peer["flows_received_total"] == 0 && peer["flows_held"] == 0, "{peer}");
    Ok(())
}

fn counts_refused(scene: &Scene, connections: u64) -> Result<u64> {
    let metric = || anyhow::Ok(scene.node.xlb.metrics()?.sum("xlb_group_connections_refused_total", &[]));
    eventually(PATIENCE, "refused connections are counted", || Ok(metric()? >= connections as f64))?;
    let status = scene.node.xlb.json(&["group", "status"])?;
    ensure!(status["connections_refused_total"] == connections, "not {connections}: {status}");
    Ok(connections)
}

/// A million flows of services, backends and sources that the node does not have, or without a client.
fn sends_what_cannot_be(scene: &Scene) -> Result<()> {
    let process = scene.node.xlb.pid()?;
    forget_peak_memory_of(process)?;
    let (memory, cpu, begun) = (peak_memory_of(process)?, cpu_time_of(process)?, Instant::now());

    let slowest = scene.while_it_answers(|| {
        let has_all = || Ok(scene.node.peer()?["flows_received_total"] == RECORDS);
        scene.impostor.tell(&scene.papers(), records::unknown(RECORDS), has_all)
    })?;

    let (more, cpu, took) = (peak_memory_of(process)? - memory, cpu_time_of(process)? - cpu, begun.elapsed());
    eprintln!("{RECORDS} records in {took:?}: {cpu:?} of a CPU, {} KiB more", more / 1024);
    eprintln!("`xlb status` took at most {slowest:?} meanwhile");
    ensure!(more < MEMORY && cpu < Duration::from_secs(10) && slowest < Duration::from_secs(1));
    let (peer, metrics) = (scene.node.peer()?, scene.node.xlb.metrics()?);
    for reason in ["unknown_service", "unknown_backend", "other_source", "malformed"] {
        let metric = metrics.sum("xlb_group_flows_skipped_total", &[("reason", reason)]);
        ensure!(skipped(&peer, reason) == RECORDS / 4 && metric == (RECORDS / 4) as f64, "{reason}: {peer}");
    }
    ensure!(peer["flows_held"] == 0, "{peer}");
    scene.has_flows_of_its_clients_alone()
}

/// Live connections are told to be those of another service, with its backend, from another source, or with another backend
/// before; and their backends and sources to be those of other clients.
fn tells_of_flows_of_others(scene: &Scene) -> Result<()> {
    let (flows, before) = (scene.flows_of(ECHO)?, scene.node.peer()?);
    ensure!(flows.len() == CONNECTIONS, "the node tells of {} flows", flows.len());
    let told: Vec<_> =
        flows.iter().flat_map(|it| [&records::of_others(it)[..], &records::rivals(it)].concat()).collect();

    let peer = scene.tell(records::frames(&told))?;

    let count = |reason| (skipped(&peer, reason) - skipped(&before, reason)) as usize;
    let counts = ["unknown_backend", "other_source", "newer_here"].map(count);
    ensure!(counts == [2, 1, 2].map(|each| each * flows.len()), "{counts:?} of {}", flows.len());
    scene.has_flows_of_its_clients_alone()
}

/// Live connections have ended before; or they were closed, or reset by the client, just now.
fn ends_live_flows(scene: &Scene) -> Result<()> {
    let flows = scene.flows_of(ECHO)?;
    let kinds = [(CLOSED, OLD_MS), (REMOVED, OLD_MS), (CLOSED, 0), (RESET_BY_CLIENT, 0)];
    let kinds = kinds.into_iter().cycle();
    let ended: Vec<_> = flows
        .iter()
        .zip(kinds)
        .map(|(it, (ending, idle_ms))| Flow { ending, idle_ms, ..it.clone() })
        .collect();

    scene.tell(vec![Frame { ended: ended.clone(), ..Frame::default() }])?;

    let open = scene.node.flows("echo")?;
    for flow in ended.iter().filter(|flow| flow.idle_ms == OLD_MS) {
        let client = records::client(flow).context("a flow without a client")?.to_string();
        ensure!(open.contains_key(&client), "{client} is not open");
    }
    Ok(())
}

/// All flows are the peer's in a whole round, and in the next one there are none.
fn claims_all_flows_and_forgets_them(scene: &Scene) -> Result<()> {
    let flows = scene.flows_of(ECHO)?.into_iter().map(|flow| Flow { idle_ms: 0, ..flow });
    let mut frames = vec![records::round(Round::Begin)];
    frames.extend(records::frames(&flows.collect::<Vec<_>>()));
    frames.extend([Round::End, Round::Begin, Round::End].map(records::round));

    let peer = scene.tell(frames)?;

    ensure!(peer["complete"] == true && peer["flows_held"] == 0, "{peer}");
    Ok(())
}

/// What a peer can do with flows that it names: it is trusted to know which have ended, and where the
/// last packet of a client went.
fn may_move_and_remove_flows(scene: &Scene) -> Result<()> {
    const FEW: (Duration, usize) = (Duration::from_millis(100), 4);
    let live = [Family::V4, Family::V6].map(|family| scene.open(SPARE, family, FEW));
    let (moved, removed): (Vec<_>, Vec<_>) =
        scene.flows_of(SPARE)?.into_iter().partition(|flow| records::family(flow) == Family::V4);
    ensure!(moved.len() == FEW.1 && removed.len() == FEW.1, "{moved:?} {removed:?}");
    let moved: Vec<_> = moved.iter().map(records::moved).collect();
    let ended = removed.into_iter().map(|flow| Flow { ending: REMOVED, idle_ms: 0, ..flow }).collect();
    let mut frames = records::frames(&moved);
    frames.push(Frame { ended, ..Frame::default() });

    scene.tell(frames)?;

    for live in live {
        let live = live?;
        ensure!(live.count_alive(Duration::from_secs(1))? == 0);
        eprintln!("of flows that a peer may end: {}", live.finish()?);
    }
    Ok(())
}

fn skipped(peer: &Value, reason: &str) -> u64 {
    peer["flows_skipped_total"][reason].as_u64().unwrap_or_default()
}
