//! Warnings for settings of the file or the host that differ from the pinned maps, which stay until `xlb detach`.

use lb_common::{limits::Room, settings::PortPool};

use crate::{
    datapath::{Capacity, shapes::Sizes},
    spec::{Limits, Spec},
};

/// The sizes of the flow tables differ.
pub fn other_limits(pinned: &Capacity, limits: &Limits) -> Option<String> {
    let Sizes { v4, v6, .. } = Sizes::of(limits);
    let want = (v4.flows(), v6.flows(), v4.half_open);
    let have = (pinned.flows, pinned.flows_ipv6, pinned.half_open_flows);
    (want != have).then(|| {
        let (flows, flows_ipv6, half_open) = have;
        format!(
            "[limits] differ from the pinned flow tables, which keep their sizes: {flows} IPv4 flows, {flows_ipv6} IPv6 \
             flows, {half_open} half-open; to change them, run `xlb detach` (which ends all flows) and start xlb again"
        )
    })
}

/// The sizes of the maps for services and backends differ.
pub fn other_room(pinned: &Capacity, limits: &Limits) -> Option<String> {
    let Room { services, backends, slots } = pinned.room;
    (pinned.room != limits.room()).then(|| {
        format!(
            "[limits] differ from the pinned maps, which keep their sizes: {services} services, {backends} backends, \
             {slots} slots; to change them, run `xlb detach` (which ends all flows) and start xlb again"
        )
    })
}

/// There are no source ports, or the host uses them too. Only full-nat needs them.
pub fn other_ports(pinned: &Capacity, spec: &Spec, (first, last): (u16, u16)) -> Option<String> {
    if !spec.needs_source_ports() {
        return None;
    }
    if pinned.ports.size() == 0 {
        return Some(format!(
            "no source ports for full-nat: net.ipv4.ip_local_port_range (now {first} to {last}) left none when the maps \
             were created: narrow it, run `xlb detach` (which ends all flows) and start xlb again"
        ));
    }
    (pinned.ports != PortPool::around(first, last)).then(|| {
        format!(
            "net.ipv4.ip_local_port_range has changed ({first} to {last}), but the pinned source ports have not: set it \
             back, or run `xlb detach` (which ends all flows) and start xlb again"
        )
    })
}

#[cfg(test)]
mod tests {
    use lb_common::{net::Protocol, service::Mode};

    use super::*;
    use crate::controller::fixture::{spec, web};

    #[test]
    fn missing_source_ports_matter_only_to_full_nat() {
        let mut spec = spec(vec![web(Protocol::Tcp)]);
        let pinned = Capacity {
            flows: 8,
            flows_ipv6: 8,
            half_open_flows: 8,
            room: Room { services: 8, backends: 8, slots: 1024 },
            ports: PortPool::around(1024, 65_535),
            own_ports: PortPool::around(1024, 65_535),
            map_memory_bytes: 0,
        };

        let warning = other_ports(&pinned, &spec, (1024, 65_535)).unwrap();
        assert!(warning.starts_with("no source ports for full-nat"), "{warning}");
        // A narrower range does not change the pinned ports.
        assert!(other_ports(&pinned, &spec, (32_768, 60_999)).is_some());

        spec.services[0].mode = Mode::Nat;
        assert_eq!(other_ports(&pinned, &spec, (1024, 65_535)), None);
    }
}
