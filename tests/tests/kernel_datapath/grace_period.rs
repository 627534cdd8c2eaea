//! The slow paths of a replaced program stay until no packet is in the program.
//!
//! With few XDP programs in the system, the kernel itself waits for a grace period when it replaces one: it updates a
//! dispatcher that has 48 places (kernel/bpf/dispatcher.c). With more programs than that it does not wait.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode, xdp::XdpLink},
};
use lb_common::{net::Mac, reason::Reason};
use lb_ebpf::packet::tcp::SYN;
use lb_userspace::{datapath::wait_for_grace_period, spec::AttachMode};
use tests::{
    lab::{
        eventually,
        wait::{SOON, join},
    },
    packet::Packet,
};

use crate::{
    contents::{literal, put_everything},
    slow_paths::{of_reason, open, transmit},
    world::{World, object_named},
};

/// More than the dispatcher has places. Even, because interfaces come in pairs.
const OTHER_PROGRAMS: usize = 64;
const REPLACEMENTS: u32 = 5;

#[test]
fn a_grace_period_ends() -> Result<()> {
    wait_for_grace_period()
}

#[test]
fn a_packet_that_is_in_a_replaced_program_still_finds_its_slow_path() -> Result<()> {
    let world = World::new()?;
    // Only what this test sends arrives.
    world.namespace.sysctl("net.ipv6.conf.front-peer.disable_ipv6", "1")?;
    world.namespace.ip("link set front-peer up")?;
    world.inside(|| {
        let _others = attach_others(&world)?;
        let delayed = object_named("delay")?;
        let replace = || world.open_object(&delayed, &["front"], AttachMode::Native);
        let mut opened = replace()?;
        put_everything(&mut opened)?;
        let mac = opened.attached[0].mac;
        drop(opened);

        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| -> Result<()> {
            let sender = scope.spawn(|| send_new_flows(mac, &stop, &sent));
            let replaced = (0..REPLACEMENTS).try_for_each(|_| {
                let before = sent.load(Ordering::Relaxed);
                eventually(SOON, "the next packets", || Ok(sent.load(Ordering::Relaxed) > before + 1))?;
                replace().map(drop)
            });
            stop.store(true, Ordering::Relaxed);
            join(sender)?;
            replaced
        })?;

        let sent = sent.load(Ordering::Relaxed);
        // On a busy machine, the last packets are still in the queue of the interface.
        let count = |reason| of_reason(&world.pins(), reason);
        let are_all_counted = || Ok(count(Reason::Internal)? + count(Reason::NoClientRoute)? >= sent);
        eventually(SOON, "all packets are counted", are_all_counted)?;
        assert_eq!(of_reason(&world.pins(), Reason::Internal)?, 0, "of {sent} packets");
        // The slow path has found that there is no route to the client.
        assert_eq!(of_reason(&world.pins(), Reason::NoClientRoute)?, sent);
        Ok(())
    })
}

/// Attaches other programs to other interfaces.
fn attach_others(world: &World) -> Result<Vec<XdpLink>> {
    let names: Vec<_> = (0..OTHER_PROGRAMS).map(|number| format!("other-{number}")).collect();
    let pair = |ends: &[String]| format!("link add {} type veth peer name {}\n", ends[0], ends[1]);
    world.namespace.ip(&names.chunks_exact(2).map(pair).collect::<String>())?;
    let object = object_named("pass")?;
    let attach = |name: &String| {
        let mut object = Ebpf::load(&object)?;
        let pass: &mut Xdp = object.program_mut("pass").context("no program `pass`")?.try_into()?;
        pass.load()?;
        let link = pass.attach(name, XdpMode::Skb)?;
        Ok(pass.take_link(link)?)
    };
    names.iter().map(attach).collect()
}

/// Sends SYNs of a client to which there is no route, until it is stopped. Their slow path is the first of the array: the
/// kernel waits after each entry that it removes.
fn send_new_flows(to: Mac, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let syn = Packet::tcp(literal("198.51.100.7:40000"), literal("192.0.2.10:80"), SYN);
    let frame = syn.with(|packet| packet.to_mac = to.to_bytes()).to_frame();
    let socket = open("front-peer")?;
    while !stop.load(Ordering::Relaxed) {
        transmit(&socket, &frame)?;
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
