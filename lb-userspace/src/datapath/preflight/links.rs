//! The interfaces of this network namespace, from netlink.

use std::io;

use lb_common::net::Mac;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
};
use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

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
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;

    let mut links = Vec::new();
    loop {
        // This does not block: the kernel continues a dump on each read.
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            // Messages are aligned to four bytes (NLMSG_ALIGN, netlink(3)).
            rest = rest.get((message.header.length as usize).next_multiple_of(4)..).unwrap_or_default();
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload {
                links.push(read(link));
            } else if let NetlinkPayload::Error(error) = message.payload {
                return Err(error.to_io());
            } else if let NetlinkPayload::Done(_) = message.payload {
                return Ok(links);
            }
        }
    }
}

fn request() -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
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
