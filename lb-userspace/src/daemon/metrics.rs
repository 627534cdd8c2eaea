//! The metrics listener. Its address may appear after the daemon starts.

use tokio_util::sync::CancellationToken;

use crate::api::{handle::ControllerHandle, listen::Pending, server};

/// Serves until shutdown, as soon as the address exists.
pub async fn serve(listener: Pending, controller: ControllerHandle, stop: CancellationToken) {
    let listener = tokio::select! {
        listener = listener.listener() => listener,
        () = stop.cancelled() => return,
    };
    server::serve_metrics(listener, controller, stop.cancelled_owned()).await;
}
