//! The metrics listener. Its address may appear after the daemon starts.

use std::{net::SocketAddr, time::Duration};

use log::{error, info, warn};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        handle::ControllerHandle,
        listen::{self, Error},
        server,
    },
    duration,
};

/// Interval of attempts to bind an address that this host does not have.
const RETRY: Duration = Duration::from_secs(1);

/// The address, and its listener if this host has the address.
#[derive(Debug)]
pub struct Metrics {
    address: SocketAddr,
    listener: Option<TcpListener>,
}

impl Metrics {
    /// Binds the address. If this host does not have it, that is no error: it may appear later.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        match listen::metrics(address).await {
            Ok(listener) => Ok(Self { address, listener: Some(listener) }),
            Err(error @ Error::AddressNotAvailable(_)) => {
                warn!("{error}; retrying every {}", duration::show(RETRY));
                Ok(Self { address, listener: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Serves until shutdown, as soon as the address exists.
    pub async fn serve(self, controller: ControllerHandle, stop: CancellationToken) {
        let listener = match self.listener {
            Some(listener) => listener,
            None => tokio::select! {
                listener = bind_later(self.address) => listener,
                () = stop.cancelled() => return,
            },
        };
        server::serve_metrics(listener, controller, stop.cancelled_owned()).await;
    }
}

async fn bind_later(address: SocketAddr) -> TcpListener {
    let mut logged = Error::AddressNotAvailable(address).to_string();
    loop {
        sleep(RETRY).await;
        match listen::metrics(address).await {
            Ok(listener) => {
                info!("listening on {address} for metrics");
                return listener;
            }
            Err(error) if error.to_string() == logged => {}
            Err(error) => {
                error!("{error}; retrying every {}", duration::show(RETRY));
                logged = error.to_string();
            }
        }
    }
}
