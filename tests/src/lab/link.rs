//! Virtual cables.

use anyhow::Result;

use super::{address::Pair, namespace::Namespace};

/// One end of a cable: a namespace and the name of the interface there.
pub type End<'a> = (&'a Namespace, &'a str);

/// Prefix lengths of every subnet here.
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;

/// Plugs in a cable between two namespaces.
///
/// Both ends are created in place, not moved, so interface indices count from 1 in each namespace.
pub fn veth(near: End, far: End) -> Result<()> {
    near.0.ip(&format!("link add {} type veth peer name {} netns {}", near.1, far.1, far.0))?;
    for (namespace, interface) in [near, far] {
        namespace.ip(&format!("link set {interface} up"))?;
    }
    Ok(())
}

/// Makes a cable's end accept frames that XDP sent, and send frames with complete checksums.
///
/// The kernel delivers redirected frames only to a veth that polls, which GRO switches on. A veth also delivers frames
/// whose checksum was left to the hardware; here it is computed in software before sending.
pub fn behave_as_a_nic((namespace, interface): End) -> Result<()> {
    namespace.run(&["ethtool", "-K", interface, "gro", "on", "tx-checksum-ip-generic", "off"]).map(drop)
}

/// Gives a cable's end a queue: without one, a veth drops what exceeds 256 packets, as in the moment in which thousands of
/// connections repeat what was lost. Since Linux 6.16, the queue holds them back.
pub fn queue((namespace, interface): End) -> Result<()> {
    namespace.run(&["tc", "qdisc", "replace", "dev", interface, "root", "pfifo", "limit", "10000"]).map(drop)
}

/// Lets a bridge send only frames to this port that are for a host behind it, and those that are for all. A frame that is
/// flooded to a standby would show a take-over that is too good.
pub fn flood_nothing((namespace, port): End) -> Result<()> {
    namespace.ip(&format!("link set {port} type bridge_slave flood off\n"))
}

/// Puts interfaces of `namespace` on one Ethernet.
pub fn bridge(namespace: &Namespace, name: &str, ports: &[String]) -> Result<()> {
    let mut lines = format!("link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n");
    for port in ports {
        lines += &format!("link set {port} master {name}\n");
    }
    lines += &format!("link set {name} up\n");
    namespace.ip(&lines)
}

/// Gives an interface an address of each family.
pub fn address((namespace, interface): End, pair: Pair) -> Result<()> {
    namespace.ip(&format!(
        "address add {}/{PREFIX_V4} dev {interface}\naddress add {}/{PREFIX_V6} dev {interface} nodad\n",
        pair.v4, pair.v6
    ))
}

/// Routes everything else through `gateway`.
pub fn default_route(namespace: &Namespace, gateway: Pair) -> Result<()> {
    namespace.ip(&format!("route add 0.0.0.0/0 via {}\nroute add ::/0 via {}\n", gateway.v4, gateway.v6))
}

/// Routes the subnet in which `inside` lies through `gateway`.
pub fn route(namespace: &Namespace, inside: Pair, gateway: Pair) -> Result<()> {
    let (v4, v6) = subnet(inside);
    namespace.ip(&format!("route add {v4} via {}\nroute add {v6} via {}\n", gateway.v4, gateway.v6))
}

/// Removes the route to the subnet in which `inside` lies, except for packets from `source` (`ip rule`).
pub fn route_by_source(namespace: &Namespace, inside: Pair, gateway: Pair, source: Pair) -> Result<()> {
    const TABLE: &str = "100";
    let (v4, v6) = subnet(inside);
    for (option, subnet, gateway, source) in [
        ("-4", v4, gateway.v4.to_string(), source.v4.to_string()),
        ("-6", v6, gateway.v6.to_string(), source.v6.to_string()),
    ] {
        namespace.run(&["ip", option, "route", "del", &subnet])?;
        namespace.run(&["ip", option, "route", "add", &subnet, "via", &gateway, "table", TABLE])?;
        namespace.run(&["ip", option, "rule", "add", "from", &source, "lookup", TABLE])?;
    }
    Ok(())
}

/// Lets no packet larger than `mtu` pass from `router` to the subnet in which `inside` lies.
///
/// The route's MTU, not the link's: the link still receives larger packets.
pub fn narrow(router: End, inside: Pair, mtu: u16) -> Result<()> {
    let ((namespace, interface), (v4, v6)) = (router, subnet(inside));
    namespace.ip(&format!(
        "route replace {v4} dev {interface} proto kernel mtu lock {mtu}\n\
         route replace {v6} dev {interface} proto kernel metric 256 mtu lock {mtu}\n"
    ))
}

fn subnet(inside: Pair) -> (String, String) {
    let [a, b, c, _] = inside.v4.octets();
    let [e, f, g, h, ..] = inside.v6.segments();
    (format!("{a}.{b}.{c}.0/{PREFIX_V4}"), format!("{e:x}:{f:x}:{g:x}:{h:x}::/{PREFIX_V6}"))
}
