//! The interfaces of this network namespace, from netlink.

use std::io;

use lb_common::net::Mac;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
};

use crate::route_socket::RouteSocket;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    pub name: String,
    pub index: u32,
    /// `None`: not Ethernet.
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub is_veth: bool,
    pub xdp: Option<Xdp>,
    pub lro: bool,
    /// `None`: the interface does not have the family.
    pub forwarding_v4: Option<bool>,
    pub forwarding_v6: Option<bool>,
}

/// The XDP program of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// The program's id.
    pub program: u32,
    /// Generic mode: it runs in the network stack, after an skb is allocated. Otherwise it runs in the driver or
    /// the device.
    pub is_generic: bool,
}

/// All interfaces. What netlink does not report (LRO, forwarding) is left empty.
pub fn dump() -> io::Result<Vec<Link>> {
    let links = RouteSocket::open()?.list(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let read =
        |message| if let RouteNetlinkMessage::NewLink(link) = message { Some(read(link)) } else { None };
    Ok(links.into_iter().filter_map(read).collect())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "netlink reports much more about a link")]
fn read(message: LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, ..Link::default() };
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            // The loopback interface has an address of six bytes, too.
            LinkAttribute::Address(bytes) if is_ethernet => {
                link.mac = <[u8; 6]>::try_from(bytes).ok().map(Mac::new);
            }
            LinkAttribute::Xdp(attributes) => link.xdp = xdp(&attributes),
            LinkAttribute::LinkInfo(infos) => link.is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
            _ => {}
        }
    }
    link
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others set a program, and do not describe one")]
fn xdp(attributes: &[LinkXdp]) -> Option<Xdp> {
    let mut mode = XdpAttached::None;
    let mut program = None;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(attached) => mode = *attached,
            // With several programs there is no ProgId, and each of them conflicts.
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
                program = Some(*id)
            }
            _ => {}
        }
    }
    let is_generic = mode == XdpAttached::SocketBuffer;
    program.filter(|_| mode != XdpAttached::None).map(|program| Xdp { program, is_generic })
}
