//! The connection of a probe, from the source address that the backend sees.
//!
//! If routes depend on the source (`ip rule from`), another source may take another route, or none.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use tokio::net::{TcpSocket, TcpStream};

use super::{Fault, Place, fault::plain};

pub(super) async fn connect(place: Place) -> Result<TcpStream, Fault> {
    let Place { address, source } = place;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        bind(&socket, source)
            .map_err(|error| Fault::local(format!("cannot bind to source {source}: {}", plain(&error))))?;
    }
    Ok(socket.connect(address).await?)
}

/// `connect` chooses the port: a port bound here could not be used at the same time by probes of other backends.
fn bind(socket: &TcpSocket, source: IpAddr) -> io::Result<()> {
    setsockopt(socket, IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddr::new(source, 0))
}
