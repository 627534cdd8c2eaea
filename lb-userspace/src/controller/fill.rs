//! How full the flow tables and the source ports are, and warnings when they are nearly full.

use std::net::IpAddr;

use lb_common::service::Mode;

use super::{answer::Facts, state::State};
use crate::{
    datapath::Capacity,
    metrics::FlowTable,
    spec::{Backend, Service},
};

/// Percentage of a table, or of ports, above which there is a warning. The same as in deploy/prometheus-rules.yml.
const NEARLY_FULL_PERCENT: u64 = 80;

/// One line for each table and each backend that is nearly full. The line has no exact figure, so that it is logged
/// once.
pub fn warnings(facts: &Facts<'_>, state: &State, capacity: &Capacity) -> Vec<String> {
    let tables = facts.flow_tables(capacity).into_iter().filter_map(|table| full_table(&table));
    let services = state.spec().services.iter();
    let backends =
        services.flat_map(|service| service.backends.iter().map(move |backend| (service, backend)));
    let most = facts.most_flows();
    let ports = backends.filter_map(|(service, backend)| full_ports(facts, most, capacity, service, backend));
    tables.chain(ports).collect()
}

/// Half-open flows do not count: they are evicted for others.
fn full_table(table: &FlowTable) -> Option<String> {
    let FlowTable { family, flows, established_max, .. } = table;
    let (name, limit) = match *family {
        "ipv4" => ("IPv4", "flows"),
        _ => ("IPv6", "flows_ipv6"),
    };
    is_nearly_full(flows.established + flows.closing, *established_max).then(|| {
        format!(
            "the {name} flow table is more than {NEARLY_FULL_PERCENT} % full (maximum: {established_max} flows): raise \
             {limit} in [limits], run `xlb detach` (which ends all flows) and start xlb again"
        )
    })
}

/// With full-nat, each flow of a backend needs its own source address and port. `most`: no backend has more flows.
fn full_ports(
    facts: &Facts<'_>,
    most: u64,
    capacity: &Capacity,
    service: &Service,
    backend: &Backend,
) -> Option<String> {
    if service.mode != Mode::FullNat {
        return None;
    }
    let is_of_family = |source: &&IpAddr| source.is_ipv4() == backend.address.is_ipv4();
    let sources = service.sources.iter().filter(is_of_family).count() as u64;
    let ports = sources * u64::from(capacity.ports.size());
    // The backend's own flows are found by its name, which takes longer.
    let is_full = is_nearly_full(most, ports) && is_nearly_full(facts.flows(service, backend).all(), ports);
    is_full.then(|| {
        let (service, backend) = (&service.name, &backend.name);
        format!(
            "backend {service}/{backend}: more than {NEARLY_FULL_PERCENT} % of the {ports} source ports towards it are in \
             use: add an address to `source` of service {service}, or add backends"
        )
    })
}

/// Without any ports there are other warnings.
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
