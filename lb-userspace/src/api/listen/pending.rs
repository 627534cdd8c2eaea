//! Listeners whose address may appear after the daemon starts, as at boot.

use std::{fmt, io, net::SocketAddr, time::Duration};

use log::{error, info, warn};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::sleep,
};

use super::Error;
use crate::duration;

/// Interval of attempts to bind an address that this host does not have.
const RETRY: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted, as in the standard library.
const BACKLOG: u32 = 1024;

/// The part of the configuration that has the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `[group]`
    Group,
    /// `[metrics]`
    Metrics,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "[group]",
            Self::Metrics => "[metrics]",
        })
    }
}

/// The address, and its listener if this host has the address.
#[derive(Debug)]
pub struct Pending {
    place: Place,
    listener: Option<TcpListener>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    address: SocketAddr,
    part: Part,
    send_buffer_bytes: Option<u32>,
}

impl Pending {
    /// Binds the address. If this host does not have it, that is no error: it may appear later. `send_buffer_bytes`: of each
    /// connection, instead of what the kernel chooses.
    pub fn bind(address: SocketAddr, part: Part, send_buffer_bytes: Option<u32>) -> Result<Self, Error> {
        let place = Place { address, part, send_buffer_bytes };
        match place.bind() {
            Ok(listener) => Ok(Self { place, listener: Some(listener) }),
            Err(error @ Error::AddressNotAvailable(..)) => {
                warn!("{error}; retrying every {}", duration::show(RETRY));
                Ok(Self { place, listener: None })
            }
            Err(error) => Err(error),
        }
    }

    /// The listener, as soon as the address exists.
    pub async fn listener(self) -> TcpListener {
        match self.listener {
            Some(listener) => listener,
            None => self.place.bind_later().await,
        }
    }

    /// Where it listens, with the port that the kernel has chosen. `None`: it does not listen yet.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

impl Place {
    fn bind(self) -> Result<TcpListener, Error> {
        let Self { address, part, .. } = self;
        self.listen().map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                Error::AddressInUse(address, part)
            } else if source.kind() == io::ErrorKind::AddrNotAvailable {
                Error::AddressNotAvailable(address, part)
            } else {
                Error::Io { place: format!("{address} for {part}"), doing: "bind", source }
            }
        })
    }

    fn listen(self) -> io::Result<TcpListener> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // After a restart, connections of the last daemon may be in TIME-WAIT.
        socket.set_reuseaddr(true)?;
        if let Some(bytes) = self.send_buffer_bytes {
            // Accepted connections inherit it (socket(7)).
            socket.set_send_buffer_size(bytes)?;
        }
        socket.bind(self.address)?;
        socket.listen(BACKLOG)
    }

    async fn bind_later(self) -> TcpListener {
        let Self { address, part, .. } = self;
        let mut logged = Error::AddressNotAvailable(address, part).to_string();
        loop {
            sleep(RETRY).await;
            match self.bind() {
                Ok(listener) => {
                    info!("listening on {address} for {part}");
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
}
