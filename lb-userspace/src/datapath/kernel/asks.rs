//! What the program asks for: neighbours.

use std::fmt;

use aya::maps::{MapData, RingBuf};
use lb_common::event::NeighbourWanted;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc::{Sender, error::TrySendError},
};
use tokio_util::sync::CancellationToken;

/// The ring on which it asks.
pub struct Asks(pub(super) RingBuf<MapData>);

/// Passes the program's asks on until shutdown, or until nobody listens.
///
/// What there is no room for is dropped: the client sends again, and the program asks again.
pub async fn asks(asks: Asks, sender: Sender<NeighbourWanted>, shutdown: CancellationToken) {
    tokio::select! {
        passed = pass_on(asks, &sender) => {
            if let Err(error) = passed {
                log::error!("read neighbour requests of the XDP program: {error}; neighbours of new clients stay unresolved");
            }
        }
        () = sender.closed() => {}
        () = shutdown.cancelled() => {}
    }
}

async fn pass_on(asks: Asks, sender: &Sender<NeighbourWanted>) -> std::io::Result<()> {
    // SAFETY: the ring owns its file descriptor, which stays the same and open as long as the ring lives.
    let mut ring = unsafe { AsyncFd::register_with_interest(asks.0, Interest::READABLE) }?;
    loop {
        let mut readable = ring.readable_mut().await?;
        while let Some(bytes) = readable.get_inner_mut().next() {
            match read(&bytes).map(|wanted| sender.try_send(wanted)) {
                Some(Ok(()) | Err(TrySendError::Full(_))) => {}
                Some(Err(TrySendError::Closed(_))) => return Ok(()),
                None => log::warn!("unknown neighbour request of {} bytes from the XDP program", bytes.len()),
            }
        }
        readable.clear_ready();
    }
}

fn read(bytes: &[u8]) -> Option<NeighbourWanted> {
    let bytes: &[u8; size_of::<NeighbourWanted>()] = bytes.try_into().ok()?;
    // SAFETY: as many bytes as it has, and any integers are one.
    Some(unsafe { bytes.as_ptr().cast::<NeighbourWanted>().read_unaligned() })
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asks").finish_non_exhaustive()
    }
}
