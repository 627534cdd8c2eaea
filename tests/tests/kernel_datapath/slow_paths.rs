//! Slow paths while the program is replaced under traffic.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use lb_common::{
    counters::{ActionCounters, Tally},
    net::Mac,
    reason::Reason,
};
use lb_userspace::{datapath::shapes::pin_name, spec::AttachMode};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket},
};
use tests::packet::{Content, Icmp, Packet};

use crate::world::World;

/// How often a daemon is replaced. Its descriptors are closed first, as a kill closes them.
const REPLACEMENTS: u32 = 100;
/// Frames between two pauses of a millisecond.
const BURST: u64 = 20;

#[test]
fn no_packet_misses_its_slow_path_while_the_program_is_replaced() -> Result<()> {
    let world = World::new()?;
    // Only what this test sends arrives.
    world.namespace.sysctl("net.ipv6.conf.front-peer.disable_ipv6", "1")?;
    world.namespace.ip("link set front-peer up")?;
    world.inside(|| {
        let opened = world.open(&["front"], AttachMode::Native)?;
        let mac = opened.attached[0].mac;
        drop(opened);
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sender = thread::scope(|scope| -> Result<()> {
            let sender = scope.spawn(|| send_errors(mac, &stop, &sent));
            let replaced =
                (0..REPLACEMENTS).try_for_each(|_| world.open(&["front"], AttachMode::Native).map(drop));
            stop.store(true, Ordering::Relaxed);
            sender.join().expect("the sender does not panic")?;
            replaced
        });
        sender?;

        let actions = of_interface(&world.pins(), world.index("front")?)?;
        let missed = of_reason(&world.pins(), Reason::Internal)?;

        assert_eq!(missed, 0, "of {} frames", sent.load(Ordering::Relaxed));
        assert_eq!(actions.passed, sent.load(Ordering::Relaxed), "{actions:?}");
        let arrays = std::fs::read_dir(world.pins())?.filter_map(Result::ok);
        let arrays = arrays.filter(|pin| pin.file_name().to_string_lossy().starts_with("slow_paths_"));
        assert_eq!(arrays.count(), 1, "those of replaced programs are removed");
        Ok(())
    })
}

/// Sends ICMP errors about no flow, which a slow path passes to the host, until it is stopped.
fn send_errors(to: Mac, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let (router, host) = ("198.51.100.1".parse()?, "192.0.2.10".parse()?);
    let quote = Packet::udp("192.0.2.10:80".parse()?, "198.51.100.7:40000".parse()?, b"data").quoted(8);
    let error = Icmp { kind: 3, code: 1, rest: [0; 4], payload: quote };
    let frame = Packet::new(router, host, Content::Icmp(error)).with(|packet| packet.to_mac = to.to_bytes());
    let (frame, socket) = (frame.to_frame(), open("front-peer")?);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            send(socket.as_raw_fd(), &frame, MsgFlags::empty()).context("send an ICMP error")?;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn open(interface: &str) -> Result<OwnedFd> {
    let mut links = getifaddrs()?.filter(|it| it.interface_name == interface);
    let link: Option<LinkAddr> = links.find_map(|it| it.address?.as_link_addr().copied());
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &link.context("there is no such interface")?).context("bind a packet socket")?;
    Ok(socket)
}

fn of_interface(pins: &Path, index: u32) -> Result<ActionCounters> {
    let map = Map::PerCpuArray(MapData::from_pin(pins.join(pin_name("ACTIONS")))?);
    let counters = PerCpuArray::<_, ActionCounters>::try_from(map)?.get(&index, 0)?;
    Ok(counters.iter().fold(ActionCounters::default(), |sum, it| ActionCounters {
        passed: sum.passed + it.passed,
        dropped: sum.dropped + it.dropped,
        transmitted: sum.transmitted + it.transmitted,
        redirected: sum.redirected + it.redirected,
    }))
}

fn of_reason(pins: &Path, reason: Reason) -> Result<u64> {
    let map = Map::PerCpuArray(MapData::from_pin(pins.join(pin_name("REASONS")))?);
    let counters = PerCpuArray::<_, Tally>::try_from(map)?.get(&(reason as u32), 0)?;
    Ok(counters.iter().map(|tally| tally.packets).sum())
}
