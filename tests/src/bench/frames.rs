//! Live frames per second between veths, beside nftables' DNAT.
//!
//! ```text
//!   client: wrapper ──▶ eth0 │ xlb: lb, or nftables │ eth1 ──▶ switch: dropped by XDP, or as skbs by nftables
//! ```
//!
//! Everything, including the generator, runs on one CPU, so that the total work is compared.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result};
use aya::{
    TestRun as _, TestRunAttrs, TestRunOptions,
    programs::{XdpMode, xdp::XdpLinkId},
};
use lb_common::net::{Protocol, V4};

use super::{
    balancer::{self, BACKEND_PORT, Balancer, Links},
    flows::establish,
    frame::{SERVICE_PORT, Segment, request},
    object::Object,
    report::{Table, median},
    wrapper::{Program, Wrapper, stay_on_one_cpu},
};
use crate::lab::{self, Lab, Namespace, Topology, command};

const FLOWS: u32 = 1000;
/// Frames of one measurement.
const FRAMES: u32 = 1_000_000;
/// Frames that the kernel sends at once: a part of the receiver's ring of 256.
const BATCH: u32 = 64;
/// Indices of `eth0` and `eth1`: `lo` is 1.
const LINKS: Links = Links { front: 2, back: 3 };

/// The backends that nftables uses: the first three of ours.
const BACKENDS: [&str; 3] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];

/// What is measured, in this order.
const CASES: [&str; 5] = [
    "the generator alone",
    "xlb, dropped by XDP",
    "nftables, dropped by XDP",
    "xlb, dropped as skbs",
    "nftables, dropped as skbs",
];

/// Measures everything.
pub fn measure(rounds: usize) -> Result<Vec<Table>> {
    let mut road = Road::build()?;
    let mut figures = [const { Vec::new() }; CASES.len()];
    for round in 0..rounds {
        eprintln!("bench: live frames, round {} of {rounds}", round + 1);
        for (figure, case) in figures.iter_mut().zip(CASES) {
            figure.push(road.measure(case)? / 1000.0);
        }
    }

    let [alone, xlb, nftables, xlb_skb, nftables_skb] = figures.map(|figure| median(&figure));
    let title = format!("thousand live frames per second, UDP, {FLOWS} flows");
    let mut table = Table::new(title, &["xlb", "nftables", "ratio"], 1);
    table.row("dropped by XDP", [xlb, nftables, xlb / nftables].map(Some));
    table.row("dropped as skbs", [xlb_skb, nftables_skb, xlb_skb / nftables_skb].map(Some));
    table.row("the generator alone", [Some(alone), None, None]);
    Ok(vec![table])
}

/// Client, balancer and sink.
struct Road {
    lb: Balancer<V4>,
    sink: Object,
    generator: Wrapper<V4>,
    lab: Lab,
}

impl Road {
    fn build() -> Result<Self> {
        let lab = Lab::build(&Topology::new("frames", lab::Shape::TwoNics).backends(1))?;
        lab.xlb.ip(&format!("link set eth0 address {}\n{}", mac(balancer::US), balancer::ROUTES))?;
        for backend in BACKENDS {
            let neighbour =
                format!("neigh add {backend} lladdr {} nud permanent dev eth1", mac(balancer::THEM));
            lab.xlb.ip(&neighbour)?;
        }
        // For nftables and XDP alike: frames arrive by polling.
        lab.xlb.run(&["ethtool", "-K", "eth0", "gro", "on"])?;

        let (lb, generator) = lab.xlb.inside(|| {
            let mut lb = Balancer::new(262_144, LINKS)?;
            let mut wrapper = Wrapper::new(FLOWS, LINKS.front)?;
            establish(&mut lb, &mut wrapper, FLOWS, Protocol::Udp)?;
            let requests: Vec<_> = (0..FLOWS).map(|flow| request(flow, Protocol::Udp)).collect();
            wrapper.write(0, &requests, Segment::Datagram)?;
            Ok((lb, wrapper))
        })?;
        Ok(Self { lb, sink: Object::load("bench")?, generator, lab })
    }

    /// Frames per second that arrive at the sink.
    fn measure(&mut self, case: &str) -> Result<f64> {
        let Self { lb, sink, generator, lab } = self;
        let alone = case == CASES[0];
        let as_skbs = case.ends_with("skbs");
        let _balancer = match case.split_once(',') {
            Some(("xlb", _)) => Some(Attached::new(&mut lb.object, "lb", (&lab.xlb, "eth0"))?),
            Some(_) => {
                nft(&lab.xlb, &dnat())?;
                None
            }
            None => None,
        };
        let (end, interface) = if alone { (&lab.xlb, "eth0") } else { (&lab.switch, "xlb") };
        let _sink = if as_skbs {
            nft(end, DROP)?;
            None
        } else {
            Some(Attached::new(sink, "sink", (end, interface))?)
        };

        let before = received(end, interface)?;
        let seconds = lab.client.inside(|| generate(generator))?;
        let frames = received(end, interface)? - before;

        if case.starts_with("nftables") {
            nft(&lab.xlb, "delete table ip bench\n")?;
        }
        if as_skbs {
            nft(end, "delete table netdev bench\n")?;
        }
        Ok(frames as f64 / seconds)
    }
}

/// Round-robin DNAT, like ours; without masquerade, which would cost more.
fn dnat() -> String {
    let backends = BACKENDS.iter().enumerate().map(|(n, backend)| format!("{n} : {backend}"));
    let backends = backends.collect::<Vec<_>>().join(", ");
    format!(
        "table ip bench {{
    chain requests {{ type nat hook prerouting priority -100;
        ip daddr 192.0.2.10 udp dport {SERVICE_PORT} dnat to numgen inc mod 3 map {{ {backends} }} : {BACKEND_PORT}; }}
}}
"
    )
}

/// Drops what arrives, as skbs.
const DROP: &str = "table netdev bench {
    chain arrivals { type filter hook ingress device xlb priority 0; policy drop; }
}
";

fn nft(namespace: &Namespace, rules: &str) -> Result<()> {
    command::run_with_input(&["ip", "netns", "exec", namespace.name(), "nft", "-f", "-"], rules).map(drop)
}

fn generate(generator: &mut Wrapper<V4>) -> Result<f64> {
    stay_on_one_cpu()?;
    generator.order(Program::Floor, 0..FLOWS as usize)?;
    let (packet, context) = (generator.packet(), generator.context());
    let options = TestRunOptions {
        data_in: Some(&packet),
        ctx_in: Some(&context),
        repeat: FRAMES,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::default()
    };
    let start = Instant::now();
    generator.generator()?.test_run(options).context("generate live frames")?;
    Ok(start.elapsed().as_secs_f64())
}

/// The packets that an interface has received.
fn received(namespace: &Namespace, interface: &str) -> Result<u64> {
    let counters = namespace.inside(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let line = counters.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(packets.with_context(|| format!("{namespace} has no interface {interface}"))?.parse()?)
}

fn mac(mac: lb_common::net::Mac) -> String {
    mac.to_bytes().map(|byte| format!("{byte:02x}")).join(":")
}

/// A program on an interface, until it is dropped.
struct Attached<'a> {
    object: &'a mut Object,
    program: &'static str,
    link: Option<XdpLinkId>,
}

impl<'a> Attached<'a> {
    fn new(
        object: &'a mut Object,
        program: &'static str,
        (namespace, interface): lab::link::End,
    ) -> Result<Self> {
        let xdp = object.program_mut(program)?;
        let attach = || Ok(xdp.attach(interface, XdpMode::Driver)?);
        let link = namespace.inside(attach).with_context(|| format!("attach {program} to {interface}"))?;
        Ok(Self { object, program, link: Some(link) })
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if let (Ok(program), Some(link)) = (self.object.program_mut(self.program), self.link.take()) {
            // The namespace goes away in any case.
            let _ = program.detach(link);
        }
    }
}
