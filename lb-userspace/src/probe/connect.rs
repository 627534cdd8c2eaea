//! The connection of a probe, from the source address that the backend sees.
//!
//! If routes depend on the source (`ip rule from`), another source may take another route, or none.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::{Fault, Place, fault::plain};

pub(super) async fn connect(place: Place) -> Result<TcpStream, Fault> {
    let Place { address, source } = place;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        bind(&socket, source).map_err(|error| cannot_bind(source, &error))?;
    }
    Ok(socket.connect(address).await?)
}

/// A socket that receives from this address alone.
pub(super) async fn connect_udp(place: Place) -> Result<UdpSocket, Fault> {
    let Place { address, source } = place;
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let bound = UdpSocket::bind(SocketAddr::new(source.unwrap_or(any), 0)).await;
    let socket = match source {
        Some(source) => bound.map_err(|error| cannot_bind(source, &error)),
        None => bound.map_err(|error| Fault::local(plain(&error))),
    }?;
    socket.connect(address).await?;
    Ok(socket)
}

fn cannot_bind(source: IpAddr, error: &io::Error) -> Fault {
    Fault::local(format!("cannot bind to source {source}: {}", plain(error)))
}

/// `connect` chooses the port: a port bound here could not be used at the same time by probes of other backends.
fn bind(socket: &TcpSocket, source: IpAddr) -> io::Result<()> {
    setsockopt(socket, IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddr::new(source, 0))
}
