//! Requests of the XDP program to resolve neighbours.

use std::fmt;

use aya::maps::{MapData, RingBuf};
use lb_common::event::NeighbourWanted;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc::{Sender, error::TrySendError},
};
use tokio_util::sync::CancellationToken;

/// The ring buffer with the requests.
pub struct NeighbourRequests(pub(super) RingBuf<MapData>);

/// Forwards the program's requests until shutdown, or until the receiver is closed.
///
/// Requests are dropped while the channel is full: the client sends again, and so does the program.
pub async fn forward_neighbour_requests(
    ring: NeighbourRequests,
    sender: Sender<NeighbourWanted>,
    shutdown: CancellationToken,
) {
    tokio::select! {
        passed = forward_all(ring, &sender) => {
            if let Err(error) = passed {
                log::error!("cannot read neighbour requests from the XDP program: {error}; neighbours of new clients stay unresolved");
            }
        }
        () = sender.closed() => {}
        () = shutdown.cancelled() => {}
    }
}

async fn forward_all(ring: NeighbourRequests, sender: &Sender<NeighbourWanted>) -> std::io::Result<()> {
    // SAFETY: the ring owns its file descriptor, which stays open and unchanged as long as the ring lives.
    let mut ring = unsafe { AsyncFd::register_with_interest(ring.0, Interest::READABLE) }?;
    loop {
        let mut readable = ring.readable_mut().await?;
        while let Some(bytes) = readable.get_inner_mut().next() {
            match read(&bytes).map(|request| sender.try_send(request)) {
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
    // SAFETY: the length is right, and any bytes are a valid value.
    Some(unsafe { bytes.as_ptr().cast::<NeighbourWanted>().read_unaligned() })
}

impl fmt::Debug for NeighbourRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NeighbourRequests").finish_non_exhaustive()
    }
}
