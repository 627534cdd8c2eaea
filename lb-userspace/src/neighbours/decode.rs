//! Decodes netlink messages. No I/O.

#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel has many words, and gets more: ours are few")]

use std::net::IpAddr;

use lb_common::{hop::InterfaceIndex, net::Mac};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::{
    network::Fact,
    resolve::{Link, Neighbour, Place, Route},
};

/// The change that a message reports, or `None` if xlb does not use it.
pub fn fact(message: &RouteNetlinkMessage) -> Option<Fact> {
    use RouteNetlinkMessage as Message;
    match message {
        Message::NewLink(message) => link(message).map(|(index, link)| Fact::Link(index, Some(link))),
        Message::DelLink(message) => link(message).map(|(index, _)| Fact::Link(index, None)),
        Message::NewNeighbour(message) => {
            neighbour(message).map(|(place, neighbour)| Fact::Neighbour(place, Some(neighbour)))
        }
        Message::DelNeighbour(message) => neighbour(message).map(|(place, _)| Fact::Neighbour(place, None)),
        // A clone is a cached result for one destination, not a change of routes.
        Message::NewRoute(message) | Message::DelRoute(message) => {
            (!message.header.flags.contains(RouteFlags::Cloned)).then_some(Fact::Routes)
        }
        Message::NewRule(_) | Message::DelRule(_) => Some(Fact::Routes),
        Message::NewAddress(_) | Message::DelAddress(_) => Some(Fact::Addresses),
        _ => None,
    }
}

/// A link's index and properties.
pub fn link(message: &LinkMessage) -> Option<(InterfaceIndex, Link)> {
    // A bridge reports its ports in messages of its own family: a port that leaves is "deleted", but the link
    // still exists.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let attributes = &message.attributes;
    let name =
        find(attributes, |it| if let LinkAttribute::IfName(name) = it { Some(name.clone()) } else { None })?;
    let address =
        find(attributes, |it| if let LinkAttribute::Address(bytes) = it { mac(bytes) } else { None });
    // The loopback interface has an address of six bytes, too.
    let mac = address.filter(|_| message.header.link_layer_type == LinkLayerType::Ether);
    let mtu = find(attributes, |it| if let LinkAttribute::Mtu(mtu) = it { Some(*mtu) } else { None })?;
    let is_up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    Some((InterfaceIndex(message.header.index), Link { name, mac, mtu, is_up }))
}

/// A neighbour's location and state.
pub fn neighbour(message: &NeighbourMessage) -> Option<(Place, Neighbour)> {
    // The forwarding table of a bridge has the same messages, without an IP address. Proxy entries are not
    // neighbours.
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let address = find(&message.attributes, |it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    let mac = find(&message.attributes, |it| match it {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
        _ => None,
    });
    let neighbour = match (message.header.state, mac) {
        (NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) => Neighbour::Fixed(mac),
        (NeighbourState::Reachable | NeighbourState::Delay | NeighbourState::Probe, Some(mac)) => {
            Neighbour::Fresh(mac)
        }
        (NeighbourState::Stale, Some(mac)) => Neighbour::Stale(mac),
        (NeighbourState::Failed, _) => Neighbour::Failed,
        _ => Neighbour::Incomplete,
    };
    Some(((InterfaceIndex(message.header.ifindex), address), neighbour))
}

/// The answer to a route lookup.
pub fn route(destination: IpAddr, message: &RouteMessage) -> Route {
    let attributes = &message.attributes;
    let Some(interface) =
        find(attributes, |it| if let RouteAttribute::Oif(it) = it { Some(*it) } else { None })
    else {
        return Route::Missing;
    };
    if message.header.kind == RouteType::Local {
        return Route::Local;
    }
    if message.header.kind != RouteType::Unicast {
        return Route::Missing;
    }
    let gateway = find(attributes, |it| match it {
        RouteAttribute::Gateway(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        // RFC 5549: an IPv4 route through an IPv6 neighbour.
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    Route::Via {
        interface: InterfaceIndex(interface),
        next_hop: gateway.unwrap_or(destination),
        mtu: configured_mtu(destination, message),
    }
}

/// The MTU that the operator set for the route, not one learned from an ICMP error: a learned MTU applies to this
/// host's packets, and a forged error must not affect a backend's traffic.
fn configured_mtu(destination: IpAddr, message: &RouteMessage) -> Option<u32> {
    let is_learned = match destination {
        // `rt_fill_info` adds an expiry time to a learned MTU. A configured one has none.
        IpAddr::V4(_) => message
            .attributes
            .iter()
            .any(|it| matches!(it, RouteAttribute::CacheInfo(cache) if cache.expires != 0)),
        // `rt6_fill_node` marks exceptions.
        IpAddr::V6(_) => message.header.flags.contains(RouteFlags::Cloned),
    };
    let mtu = find(&message.attributes, |it| match it {
        RouteAttribute::Metrics(metrics) => {
            find(metrics, |metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None })
        }
        _ => None,
    });
    mtu.filter(|mtu| *mtu > 0 && !is_learned)
}

fn find<A, T>(attributes: &[A], pick: impl Fn(&A) -> Option<T>) -> Option<T> {
    attributes.iter().find_map(pick)
}

/// The Ethernet address in an attribute. Other kinds of links have other lengths, or none.
fn mac(bytes: &[u8]) -> Option<Mac> {
    let bytes: [u8; 6] = bytes.try_into().ok()?;
    Some(Mac::new(bytes)).filter(|mac| !mac.is_zero())
}

#[cfg(test)]
mod tests;
