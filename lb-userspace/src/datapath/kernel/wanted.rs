//! What the program asks for: neighbours.

use std::{fmt, io, pin::pin};

use aya::maps::{MapData, RingBuf};
use lb_common::event::NeighbourWanted;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc::{Sender, error::TrySendError},
};

/// The ring on which it asks.
pub struct Wanted(pub(super) RingBuf<MapData>);

/// Passes the program's asks on until shutdown, or until nobody listens.
///
/// What there is no room for is dropped: the client sends again, and the program asks again.
pub async fn asks(
    wanted: Wanted,
    sender: Sender<NeighbourWanted>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    // SAFETY: the ring owns its file descriptor, which stays the same and open as long as the ring lives.
    let mut ring = unsafe { AsyncFd::register_with_interest(wanted.0, Interest::READABLE) }?;
    let mut shutdown = pin!(shutdown);
    loop {
        let mut readable = tokio::select! {
            readable = ring.readable_mut() => readable?,
            () = sender.closed() => return Ok(()),
            () = &mut shutdown => return Ok(()),
        };
        while let Some(bytes) = readable.get_inner_mut().next() {
            match read(&bytes).map(|wanted| sender.try_send(wanted)) {
                Some(Ok(())) | Some(Err(TrySendError::Full(_))) => {}
                Some(Err(TrySendError::Closed(_))) => return Ok(()),
                None => log::warn!(bytes = bytes.len(); "the XDP program asked for something unknown"),
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

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").finish_non_exhaustive()
    }
}
