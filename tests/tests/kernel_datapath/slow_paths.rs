//! Slow paths while the program is replaced under traffic.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, PerCpuArray};
use lb_common::{
    counters::{ActionCounters, Tally},
    net::Mac,
    reason::Reason,
};
use lb_ebpf::packet::tcp::SYN;
use lb_userspace::{datapath::shapes::pin_name, spec::AttachMode};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket},
};
use tests::{
    lab::wait::join,
    packet::{Content, Icmp, Packet},
};

use crate::{
    contents::{literal, put_everything},
    process::{Process, open_if_started},
    world::World,
};

/// The longest time for which a CPU may leave its queue full.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a daemon is replaced. Its descriptors are closed first, as a kill closes them.
const REPLACEMENTS: u32 = 100;
/// How many processes are killed, each at a later moment of its start.
const KILLS: u32 = 100;
/// How often the duration of a start is measured.
const ROUNDS: u32 = 10;
/// The name of the test that starts itself in these processes.
const KILLED: &str =
    "slow_paths::no_packet_misses_its_slow_path_while_processes_that_replace_the_program_are_killed";
/// Frames between two pauses of a millisecond: a multiple of the kinds of frames.
const BURST: u64 = 20;

#[test]
fn no_packet_misses_its_slow_path_while_the_program_is_replaced() -> Result<()> {
    under_traffic(|world| {
        (0..REPLACEMENTS).try_for_each(|_| world.open(&["front"], AttachMode::Native).map(drop))
    })
}

#[test]
fn no_packet_misses_its_slow_path_while_processes_that_replace_the_program_are_killed() -> Result<()> {
    open_if_started()?;
    under_traffic(|world| {
        let mut programs = BTreeSet::new();
        for round in 0..ROUNDS {
            // Measured again in each round, because other tests that run at the same time end.
            let takes = Process::time(KILLED, world, &["front"])?;
            for moment in (round..KILLS).step_by(ROUNDS as usize) {
                let process = Process::start(KILLED, world, &["front"])?;
                // No event marks the moment: any moment is meant, up to a little after the replacement.
                thread::sleep(takes * 5 / 4 * moment / KILLS);
                process.kill()?;
                programs.insert(world.program("front")?);
            }
        }
        println!("{} programs after {KILLS} kills", programs.len());
        ensure!((2..KILLS as usize).contains(&programs.len()), "all were killed before, or all after");
        world.open(&["front"], AttachMode::Native).map(drop)
    })
}

/// Does something while packets take slow paths. No packet may miss one.
fn under_traffic(work: impl FnOnce(&World) -> Result<()> + Send) -> Result<()> {
    let world = World::new()?;
    // Only what this test sends arrives.
    world.namespace.sysctl("net.ipv6.conf.front-peer.disable_ipv6", "1")?;
    world.namespace.ip("link set front-peer up")?;
    world.inside(|| {
        let mut opened = world.open(&["front"], AttachMode::Native)?;
        put_everything(&mut opened)?;
        let mac = opened.attached[0].mac;
        drop(opened);
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| -> Result<()> {
            let sender = scope.spawn(|| send_to_slow_paths(mac, &stop, &sent));
            let done = work(&world);
            stop.store(true, Ordering::Relaxed);
            join(sender)?;
            done
        })?;

        let actions = of_interface(&world.pins(), world.index("front")?)?;
        let (missed, sent) = (of_reason(&world.pins(), Reason::Internal)?, sent.load(Ordering::Relaxed));

        assert!(sent >= u64::from(REPLACEMENTS) * BURST, "only {sent} frames were sent");
        assert_eq!(missed, 0, "of {sent} frames");
        // Errors about no flow are passed, and SYNs of clients without a route dropped.
        assert_eq!((actions.passed, actions.dropped), (sent / 2, sent / 2), "{actions:?}");
        assert_eq!(of_reason(&world.pins(), Reason::NoClientRoute)?, sent / 2);
        let arrays = std::fs::read_dir(world.pins())?.filter_map(Result::ok);
        let arrays = arrays.filter(|pin| pin.file_name().to_string_lossy().starts_with("slow_paths_"));
        assert_eq!(arrays.count(), 1, "those of replaced programs are removed");
        Ok(())
    })
}

/// Sends ICMP errors about no flow and SYNs, of both families, until it is stopped.
fn send_to_slow_paths(to: Mac, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    // Destination unreachable, of both families.
    let errors = [
        error(3, "198.51.100.1".parse()?, "192.0.2.10:80".parse()?, "198.51.100.7:40000".parse()?),
        error(1, "2001:db8:51::1".parse()?, "[2001:db8::10]:80".parse()?, "[2001:db8:51::7]:40000".parse()?),
    ];
    let syns = [
        Packet::tcp(literal("198.51.100.7:40000"), literal("192.0.2.10:80"), SYN),
        Packet::tcp(literal("[2001:db8:51::7]:40000"), literal("[2001:db8::10]:80"), SYN),
    ];
    let packets = errors.into_iter().chain(syns);
    let frames: Vec<_> =
        packets.map(|packet| packet.with(|packet| packet.to_mac = to.to_bytes()).to_frame()).collect();
    let socket = open("front-peer")?;
    while !stop.load(Ordering::Relaxed) {
        for frame in frames.iter().cycle().take(BURST as usize) {
            transmit(&socket, frame)?;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A router's error about a datagram from `host` to `client`.
fn error(kind: u8, router: IpAddr, host: SocketAddr, client: SocketAddr) -> Packet {
    let payload = Packet::udp(host, client, b"data").quoted(8);
    let error = Icmp { kind, code: 1, rest: [0; 4], payload };
    Packet::new(router, host.ip(), Content::Icmp(error))
}

/// Sends a frame until it fits into the peer's queue, which is full if its CPU is busy: every frame that is counted must arrive.
pub fn transmit(socket: &OwnedFd, frame: &[u8]) -> Result<()> {
    let start = Instant::now();
    while let Err(error) = send(socket.as_raw_fd(), frame, MsgFlags::empty()) {
        ensure!(error == Errno::ENOBUFS && start.elapsed() < PATIENCE, "send a frame: {error}");
        thread::yield_now();
    }
    Ok(())
}

/// A socket that sends whole frames.
pub fn open(interface: &str) -> Result<OwnedFd> {
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
        rejected: sum.rejected + it.rejected,
    }))
}

/// How many packets were refused for this reason.
pub fn of_reason(pins: &Path, reason: Reason) -> Result<u64> {
    let map = Map::PerCpuArray(MapData::from_pin(pins.join(pin_name("REASONS")))?);
    let counters = PerCpuArray::<_, Tally>::try_from(map)?.get(&(reason as u32), 0)?;
    Ok(counters.iter().map(|tally| tally.packets).sum())
}
