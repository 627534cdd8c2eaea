//! A flood from forged sources, sent at the service from the client's link: half-open connections, or packets of none.
//!
//! The answers go to the client's namespace, where they are dropped. A closed port would send RST (RFC 9293, 3.10.7.1);
//! without it, the connections stay half-open at xlb and at the backend.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lb_ebpf::packet::tcp::{ACK, RST, SYN};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket},
};

use super::{Lab, Namespace};
use crate::packet::Packet;

/// Maximum number of keys: each has a forged address in 198.18.0.0/15 (RFC 2544, for measurements).
pub const MOST_KEYS: u32 = 1 << 17;
const NETWORK_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const PREFIX_V4: u8 = 15;
const NETWORK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0);
const PREFIX_V6: u8 = 64;

/// Packets a second: fast enough to fill the table soon, slow enough to leave CPU time to others.
pub const RATE: u32 = 40_000;
/// The longest duration of a flood.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// SYNs before the first of their ACKs: by then the SYN-ACK has passed, and its number can be guessed.
const AHEAD: u32 = 64;

/// What each forged source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing more.
    Syn,
    /// An ACK of data that was never sent.
    SynAndForgedAck,
    /// An ACK, without a SYN before it.
    Ack,
    /// A reset, without a SYN before it.
    Reset,
    /// An empty datagram.
    Datagram,
}

/// A running flood, in a thread of its own.
pub struct Flood {
    thread: JoinHandle<Result<Sent>>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Sent packets; retries count once.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How often the link had no room for a frame, which was then retried.
    pub again: u64,
    /// The duration, pauses included.
    pub took: Duration,
}

/// Routes the forged network back to the client, which drops these packets.
pub fn route_back(lab: &Lab) -> Result<()> {
    let (v4, v6) = (format!("{NETWORK_V4}/{PREFIX_V4}"), format!("{NETWORK_V6}/{PREFIX_V6}"));
    let client = lab.clients.first().context("the lab has no client")?;
    lab.xlb.ip(&format!("route add {v4} via {}\nroute add {v6} via {}\n", client.v4, client.v6))?;
    lab.client.ip(&format!("route add blackhole {v4}\nroute add blackhole {v6}\n"))
}

impl Flood {
    /// Begins to send, from `keys` sources of the family of `to`, each with an address of its own, at this rate in a second.
    pub fn start(lab: &Lab, kind: Kind, to: SocketAddr, keys: u32, rate: u32) -> Result<Self> {
        ensure!(keys <= MOST_KEYS, "there are {MOST_KEYS} forged addresses, not {keys}");
        let (near, far) = (link(&lab.client)?, link(&lab.xlb)?);
        let mac = |of: LinkAddr| of.addr().context("the link has no MAC address");
        let macs = (mac(near)?, mac(far)?);
        let thread = lab.client.spawn(move || {
            let socket = open(near)?;
            Sender { socket, macs, to, sent: Sent::default() }.send_all(kind, keys, rate)
        });
        Ok(Self { thread })
    }

    /// Is it still sending?
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Sent> {
        self.thread.join().map_err(|_| anyhow!("the flood panicked"))?
    }
}

struct Sender {
    socket: OwnedFd,
    /// From, to.
    macs: ([u8; 6], [u8; 6]),
    to: SocketAddr,
    sent: Sent,
}

impl Sender {
    fn send_all(mut self, kind: Kind, keys: u32, rate: u32) -> Result<Sent> {
        let start = Instant::now();
        for first in (0..keys).step_by(AHEAD as usize) {
            let group = first..keys.min(first + AHEAD);
            for key in group.clone() {
                match kind {
                    Kind::Syn | Kind::SynAndForgedAck => self.send_segment(key, SYN, 0)?,
                    Kind::Ack => self.send_segment(key, ACK, scatter(!key))?,
                    Kind::Reset => self.send_segment(key, RST, 0)?,
                    Kind::Datagram => self.send(Packet::udp(source(key, self.to), self.to, b""))?,
                }
            }
            if kind == Kind::SynAndForgedAck {
                for key in group {
                    self.send_segment(key, ACK, scatter(!key))?;
                }
            }
            let due = Duration::from_secs(self.sent.packets) / rate;
            thread::sleep(due.saturating_sub(start.elapsed()));
            ensure!(
                start.elapsed() < TIME_LIMIT,
                "{first} of {keys} sources have sent within {TIME_LIMIT:?}"
            );
        }
        Ok(Sent { took: start.elapsed(), ..self.sent })
    }

    fn send_segment(&mut self, key: u32, flags: u8, acknowledgement: u32) -> Result<()> {
        self.send(Packet::tcp(source(key, self.to), self.to, flags).with(|packet| {
            let tcp = packet.tcp_mut();
            // A SYN takes one number (RFC 9293, 3.4).
            tcp.sequence = scatter(key).wrapping_add(u32::from(flags & SYN == 0));
            tcp.acknowledgement = acknowledgement;
        }))
    }

    fn send(&mut self, packet: Packet) -> Result<()> {
        const TRIES: u32 = 1000;
        const PAUSE: Duration = Duration::from_millis(1);
        let frame = packet.with(|packet| (packet.from_mac, packet.to_mac) = self.macs).to_frame();
        for _ in 0..TRIES {
            match send(self.socket.as_raw_fd(), &frame, MsgFlags::empty()) {
                Ok(_) => {
                    self.sent.packets += 1;
                    self.sent.bytes += frame.len() as u64;
                    return Ok(());
                }
                Err(Errno::ENOBUFS) => self.sent.again += 1,
                Err(error) => return Err(std::io::Error::from(error)).context("send a forged frame"),
            }
            thread::sleep(PAUSE);
        }
        bail!("the link had no room for a frame in {TRIES} tries")
    }
}

/// The forged source of a key.
fn source(key: u32, to: SocketAddr) -> SocketAddr {
    const FIRST_PORT: u16 = 1024;
    let address = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(NETWORK_V4.to_bits() | key)),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(NETWORK_V6.to_bits() | u128::from(key))),
    };
    SocketAddr::new(address, (scatter(key) >> 16) as u16 | FIRST_PORT)
}

/// A permutation of numbers.
const fn scatter(key: u32) -> u32 {
    key.wrapping_mul(0x9e37_79b1)
}

/// The first link of a namespace, which connects clients and xlb.
fn link(namespace: &Namespace) -> Result<LinkAddr> {
    namespace.inside(|| {
        let mut links = getifaddrs()?.filter(|it| it.interface_name == "eth0");
        links.find_map(|it| it.address?.as_link_addr().copied()).context("there is no eth0")
    })
}

/// A socket that sends frames and, without a protocol, receives none.
fn open(link: LinkAddr) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &link).context("bind a packet socket to eth0")?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_key_has_an_address_of_its_own_in_the_forged_network() {
        for to in ["192.0.2.10:80", "[2001:db8::10]:80"] {
            let to = to.parse().unwrap();
            let sources: BTreeSet<IpAddr> = (0..MOST_KEYS).map(|key| source(key, to).ip()).collect();

            assert_eq!(sources.len(), MOST_KEYS as usize);
            assert!(sources.iter().all(|source| match source {
                IpAddr::V4(v4) =>
                    v4.to_bits() >> (32 - PREFIX_V4) == NETWORK_V4.to_bits() >> (32 - PREFIX_V4),
                IpAddr::V6(v6) => v6.segments()[..4] == NETWORK_V6.segments()[..4],
            }));
        }
    }
}
