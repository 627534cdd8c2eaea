//! The frames and records in docs/one-syn.md are real: this test makes them and looks for them on the page.
//!
//! The hash keys of [`World`] are fixed, so the source port and the places in the table are the same in every run.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use lb_common::flow::{ReplyEntry, State};
use lb_ebpf::packet::tcp::{ACK, SYN};
use tests::{
    dialogue::{BACKEND_ISN, CLIENT_ISN, Dialogue},
    engine::{Action, Engine, Flow, Memory},
    host::HostEngine,
    packet::{Packet, read},
    world::{
        Kind, WEB_1, World,
        network::{BACK, FRONT, mac_of, mac_of_interface},
    },
};

#[test]
fn the_page_shows_the_frames_and_records_of_this_program() -> Result<()> {
    let kind = Kind::tcp()[0];
    let (one, world) = (Dialogue::new(kind), World::new(kind));
    let web = world.find(WEB_1).address;
    let mut engine = HostEngine::default();
    engine.reset(&world)?;
    let mut story = Story { engine, blocks: Vec::new() };

    let forwarded = story.send(FRONT, &one.syn().packet)?;
    let (source, _) = read::endpoints(&forwarded).context("no TCP packet came out")?;
    story.remember()?;
    let syn_ack = Packet::tcp(web, source, SYN | ACK).with(|packet| {
        let tcp = packet.tcp_mut();
        (tcp.sequence, tcp.acknowledgement) = (BACKEND_ISN, CLIENT_ISN + 1);
    });
    story.send(BACK, &syn_ack)?;
    story.remember()?;
    story.send(FRONT, &one.ack(1).packet)?;
    story.remember()?;

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/one-syn.md");
    let text = fs::read_to_string(page)?;
    let missing: Vec<&String> = story.blocks.iter().filter(|block| !text.contains(*block)).collect();
    assert!(missing.is_empty(), "docs/one-syn.md does not show:\n{}", join(&missing));
    Ok(())
}

/// What was sent, what came out, and what is in the table, as the page prints it.
struct Story {
    engine: HostEngine,
    blocks: Vec<String>,
}

impl Story {
    /// Sends a packet from its source's own Ethernet address, and returns what xlb forwards.
    fn send(&mut self, interface: u32, packet: &Packet) -> Result<Vec<u8>> {
        let frame = packet.clone().with(|packet| {
            packet.from_mac = mac_of(packet.source);
            packet.to_mac = mac_of_interface(interface);
        });
        let frame = frame.to_frame();
        let outcome = self.engine.run(interface, &frame)?;
        ensure!(outcome.action == Action::Redirect, "not forwarded: {outcome:?}");
        self.blocks.extend([hex(&frame), hex(&outcome.frame)]);
        Ok(outcome.frame)
    }

    /// The flow's record and its entry of the reply index.
    fn remember(&mut self) -> Result<()> {
        let Memory { flows, reply_index, .. } = self.engine.memory()?;
        let [flow] = flows[..] else { panic!("one flow has one record: {flows:?}") };
        let [(_, line, number, word)] = reply_index[..] else {
            panic!("and one entry in the reply index: {reply_index:?}")
        };
        self.blocks.extend([record(&flow), entry(line, number, ReplyEntry(word))]);
        Ok(())
    }
}

/// One line a header, in words of 16 bits.
fn hex(frame: &[u8]) -> String {
    let (ethernet, rest) = frame.split_at(14);
    let (ip, tcp) = rest.split_at(20);
    let words = |bytes: &[u8]| {
        bytes.chunks(2).fold(String::new(), |mut words, word| {
            let _ = write!(words, " {:02x}{:02x}", word[0], word[1]);
            words
        })
    };
    format!("eth {}\nip  {}\ntcp {}\n", words(ethernet), words(ip), words(tcp))
}

fn record(flow: &Flow) -> String {
    let (client, listen) = (flow.client, flow.listen);
    let (request, reply) = (flow.request_ports, flow.reply_ports);
    let [a, b, c, d, e, f] = flow.client_hop.mac().to_bytes();
    let interface = flow.client_hop.interface();
    let proof = if flow.proof.is_of(flow.control.generation()) {
        format!("SYN-ACK seen, sequence number {:#x}", flow.proof.sequence())
    } else {
        "none".to_owned()
    };
    format!(
        "record    bucket {}, way {}\n\
         state     {}, generation {}, tag {:#010x}\n\
         request   {client}:{} > {listen}:{}\n\
         reply     {}:{} > {}:{}\n\
         backend   id {}\n\
         checksums ip {:#06x}, tcp {:#06x}\n\
         client    via {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, interface {interface}\n\
         proof     {proof}\n",
        flow.index.bucket().0,
        flow.index.way(),
        state(flow.control.state()),
        flow.control.generation(),
        flow.control.tag(),
        request.source().get(),
        request.destination().get(),
        flow.backend,
        reply.source().get(),
        flow.source,
        reply.destination().get(),
        flow.owner.backend(),
        u16::from_be(flow.deltas.ip),
        u16::from_be(flow.deltas.l4),
    )
}

fn state(state: State) -> &'static str {
    match state {
        State::HALF_OPEN => "HALF_OPEN",
        State::ESTABLISHED => "ESTABLISHED",
        other => panic!("{other:?} is not in this story"),
    }
}

fn entry(line: u32, number: usize, entry: ReplyEntry) -> String {
    let record = entry.record();
    let (bucket, way) = (record.bucket().0, record.way());
    format!(
        "line {line}, entry {number}: tag {:#010x}, generation {}, record {} (bucket {bucket}, way {way})\n",
        entry.tag(),
        entry.generation(),
        record.0,
    )
}

fn join(blocks: &[&String]) -> String {
    blocks.iter().map(|block| format!("\n{block}")).collect()
}
