//! How full the flow tables and the source ports are, and warnings when they are nearly full.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{net::Protocol, service::Mode};

use super::{answer::Facts, state::State};
use crate::{
    datapath::Capacity,
    metrics::{FlowTable, Flows},
    spec::{Backend, Service, rules::Family},
};

/// Percentage of a table, or of ports, above which there is a warning. The same as in deploy/prometheus-rules.yml.
const NEARLY_FULL_PERCENT: u64 = 80;

/// One line for each table and each backend that is nearly full. The line contains no current figure: a changing line
/// would be logged again and again.
pub fn warnings(facts: &Facts<'_>, state: &State, capacity: &Capacity) -> Vec<String> {
    let tables = facts.flow_tables(capacity).into_iter().filter_map(|table| full_table(&table));
    tables.chain(full_ports(facts, state, u64::from(capacity.own_ports.size()))).collect()
}

/// Half-open and reset flows do not count: they are evicted for others.
fn full_table(table: &FlowTable) -> Option<String> {
    let FlowTable { family, flows, established_max, .. } = table;
    let limit = match family {
        Family::V4 => "flows",
        Family::V6 => "flows_ipv6",
    };
    is_nearly_full(flows.fixed(), *established_max).then(|| {
        format!(
            "the {family} flow table is more than {NEARLY_FULL_PERCENT} % full (maximum: {established_max} flows): raise \
             {limit} in [limits], run `xlb detach` (which ends all flows) and start xlb again"
        )
    })
}

/// With full-nat, each flow to a backend address needs its own source address and port. All services of a protocol
/// with the same sources share them, so their flows count together. `ports`: of each source.
fn full_ports(facts: &Facts<'_>, state: &State, ports: u64) -> Vec<String> {
    // Only for such addresses are the flows of each backend found by its name, which takes longer.
    let addresses = facts.addresses(|flows| is_nearly_full(in_use(flows), ports));
    if addresses.is_empty() {
        return Vec::new();
    }
    let services = state.spec().services.iter().filter(|service| service.mode == Mode::FullNat);
    let backends = services.flat_map(|service| service.backends.iter().map(move |it| (&**service, it)));
    let busy: Vec<_> = backends.filter(|(_, backend)| addresses.contains(&backend.address)).collect();
    let mut sums: BTreeMap<_, u64> = BTreeMap::new();
    for (service, backend) in &busy {
        *sums.entry(port_users(service, backend)).or_default() += in_use(facts.flows(service, backend));
    }

    let warning = |(service, backend): &(&Service, &Backend)| {
        let users = port_users(service, backend);
        let ports = users.1.len() as u64 * ports;
        is_nearly_full(*sums.get(&users)?, ports).then(|| {
            let (service, backend) = (&service.name, &backend.name);
            format!(
                "backend {service}/{backend}: more than {NEARLY_FULL_PERCENT} % of the {ports} source ports towards it \
                 are in use: add an address to `source` of service {service}, or add backends"
            )
        })
    };
    busy.iter().filter_map(warning).collect()
}

/// Flows that have the same protocol, sources and backend address share source ports.
fn port_users(service: &Service, backend: &Backend) -> (Protocol, Vec<IpAddr>, SocketAddr) {
    let is_of_family = |source: &&IpAddr| source.is_ipv4() == backend.address.is_ipv4();
    let mut sources: Vec<IpAddr> = service.sources.iter().filter(is_of_family).copied().collect();
    sources.sort();
    (service.protocol, sources, backend.address)
}

/// The port of a reset flow is taken by the next flow that finds no other.
const fn in_use(flows: Flows) -> u64 {
    flows.all() - flows.reset
}

/// If there are no ports at all, [`pinned`](super::pinned) warns.
const fn is_nearly_full(used: u64, max: u64) -> bool {
    max > 0 && used * 100 > max * NEARLY_FULL_PERCENT
}

#[cfg(test)]
mod tests {
    use super::is_nearly_full;

    #[test]
    fn more_than_80_percent_is_nearly_full() {
        for (used, max, wanted) in
            [(80, 100, false), (81, 100, true), (0, 0, false), (4, 5, false), (5, 5, true)]
        {
            assert_eq!(is_nearly_full(used, max), wanted, "{used} of {max}");
        }
    }
}
