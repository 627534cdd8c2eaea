//! Captures every frame that arrives at the ends, and verifies its checksums: a veth delivers frames with wrong
//! checksums, and a kernel that relies on checksum offload does not verify them.

mod checksum;

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
            sockopt::{RcvBufForce, ReceiveTimeout},
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use super::link::End;

/// Room for bursts in the socket.
const BUFFER_BYTES: usize = 64 << 20;
/// How long a reader waits for a frame before it looks whether to stop.
const READ_TIMEOUT_MS: i64 = 100;

/// Reader threads, one per end. Dropping it stops them eventually.
pub struct Capture {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Result<Checksums>>>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Checksums {
    /// Frames with a checksum.
    pub verified: u64,
    /// Where each wrong checksum was, and in what frame; not more than [`Self::LISTED`].
    pub wrong: Vec<String>,
    /// The ends where no frame with a checksum arrived, so nothing was verified.
    pub silent: Vec<String>,
}

impl Checksums {
    /// Wrong checksums that are listed.
    const LISTED: usize = 100;
}

impl Capture {
    /// Watches frames that arrive at these ends. GRO is off there: a merged frame has no checksum of its own.
    pub fn watch<'a>(ends: impl Iterator<Item = End<'a>>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut capture = Self { stop, readers: Vec::new() };
        for (namespace, interface) in ends {
            namespace.ip(&format!("link set {interface} gro_max_size 1"))?;
            let socket = namespace.inside(open)?;
            let (stop, name) = (Arc::clone(&capture.stop), namespace.to_string());
            capture.readers.push(namespace.spawn(move || {
                let mut checksums = read(&socket, &stop).with_context(|| name.clone())?;
                if checksums.verified == 0 && checksums.wrong.is_empty() {
                    checksums.silent.push(name);
                }
                Ok(checksums)
            }));
        }
        Ok(capture)
    }

    /// Stops, and returns what was seen.
    pub fn finish(mut self) -> Result<Checksums> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Checksums::default();
        for reader in self.readers.drain(..) {
            let one = reader.join().map_err(|_| anyhow!("a reader panicked"))??;
            all.verified += one.verified;
            all.wrong.extend(one.wrong);
            all.silent.extend(one.silent);
        }
        Ok(all)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn open() -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    setsockopt(&socket, RcvBufForce, &BUFFER_BYTES)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(READ_TIMEOUT_MS))?;
    Ok(socket)
}

fn read(socket: &OwnedFd, stop: &AtomicBool) -> Result<Checksums> {
    const LARGEST: usize = 65_550;
    const LOOPBACK: usize = 1;
    const PACKET_OUTGOING: u8 = 4;

    let mut checksums = Checksums::default();
    let mut frame = vec![0; LARGEST];
    loop {
        let (len, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) {
            Ok(received) => received,
            Err(Errno::EAGAIN) if stop.load(Ordering::Relaxed) => return Ok(checksums),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(std::io::Error::from(error)).context("read a frame"),
        };
        if from.is_none_or(|from| from.ifindex() == LOOPBACK || from.pkttype() == PACKET_OUTGOING) {
            continue;
        }
        match checksum::verify(&frame[..len]) {
            None => {}
            Some(Ok(())) => checksums.verified += 1,
            Some(Err(wrong)) if checksums.wrong.len() < Checksums::LISTED => {
                checksums.wrong.push(format!("{wrong} in {:02x?}", &frame[..len.min(128)]));
            }
            Some(Err(_)) => {}
        }
    }
}
