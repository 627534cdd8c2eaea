//! The addresses that xlb puts on a device, where a routing daemon finds them: as the kernel has them.
//!
//! The kernel keeps who has added an address (`IFA_PROTO`, since Linux 5.18). So a later xlb finds its own, and no address
//! of the operator is ever taken off.

use std::{io, net::IpAddr};

use anyhow::Context as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol},
};
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use crate::route_socket::RouteSocket;

/// `X`. The kernel itself uses the numbers up to 3 (`linux/if_addr.h`).
const XLB: u8 = 88;

/// An address of this host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    pub net: IpNet,
    /// The index of its interface.
    pub interface: u32,
    /// It is on the device in question.
    pub is_on_device: bool,
    /// xlb has put it there.
    pub is_ours: bool,
}

/// The addresses that are on a device, and those that xlb has put on any.
pub fn list(device: Option<&str>) -> anyhow::Result<Vec<Placed>> {
    let list = || {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        RouteSocket::open()?.list(&request)
    };
    let addresses = list().context("cannot list the addresses of this host by netlink")?;
    // The device may be gone.
    let device = device.and_then(|device| if_nametoindex(device).ok());
    Ok(addresses
        .iter()
        .filter_map(|address| placed(address, device))
        .filter(|it| it.is_ours || it.is_on_device)
        .collect())
}

fn placed(message: &RouteNetlinkMessage, device: Option<u32>) -> Option<Placed> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let (mut address, mut local, mut is_ours) = (None, None, false);
    for attribute in &message.attributes {
        if let AddressAttribute::Local(it) = attribute {
            local = Some(*it);
        } else if let AddressAttribute::Address(it) = attribute {
            address = Some(*it);
        } else if let AddressAttribute::Protocol(protocol) = attribute {
            is_ours = u8::from(*protocol) == XLB;
        }
    }
    // With both, the other one is that of the peer.
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    let interface = message.header.index;
    Some(Placed { net, interface, is_on_device: device == Some(interface), is_ours })
}

/// Puts an address on a device. No error if it is there.
pub fn put(device: &str, address: IpAddr) -> anyhow::Result<()> {
    let put = || {
        let interface = if_nametoindex(device)?;
        let mut message = message(IpNet::from(address), interface);
        // Other nodes have it, too.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(XLB)));
        RouteSocket::open()?.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    };
    match put() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome.with_context(|| format!("cannot add {address} to {device}")),
    }
}

/// Takes off an address that xlb has put there. No error if it is gone.
pub fn take(placed: &Placed) -> anyhow::Result<()> {
    let take = || {
        let message = message(placed.net, placed.interface);
        RouteSocket::open()?.change(RouteNetlinkMessage::DelAddress(message), 0)
    };
    match take() {
        Err(error) if is_gone(&error) => Ok(()),
        outcome => outcome.with_context(|| format!("cannot take {} off", placed.net.addr())),
    }
}

/// Takes off all that xlb has put on any device. Returns how many there were.
pub fn take_all() -> anyhow::Result<usize> {
    let ours: Vec<Placed> = list(None)?;
    ours.iter().try_for_each(take)?;
    Ok(ours.len())
}

fn is_gone(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(ENODEV)
}

fn message(net: IpNet, interface: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if net.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = net.prefix_len();
    message.header.index = interface;
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}
