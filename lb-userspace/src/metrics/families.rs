//! The families, in the order of the output: interfaces and tables, services, backends, the daemon.

mod cluster;
mod group;

use std::time::SystemTime;

use lb_common::{
    counters::{BackendCounters, Tally},
    reason::{Action, Reason},
};
use prometheus::proto::MetricFamily;

use super::{Backend, FlowTable, Input, Service, family::Family};
use crate::{
    named::Named,
    probe::ProbeOutcome,
    spec::{AdminState, rules},
    view::{BackendRole, Health, Presence},
};

/// All metric families that have samples.
pub fn families(input: &Input) -> Vec<MetricFamily> {
    let mut all = vec![
        build_info(),
        active(input),
        announced(input),
        service_info(input),
        service_ready(input),
        service_active(input),
        service_panic(input),
        backend_info(input),
    ];
    all.extend(service_traffic(input));
    all.extend(backend_traffic(input));
    all.extend(backend_state(input));
    all.extend(roles(input));
    all.extend(health_checks(input));
    all.push(certificates(input));
    all.extend(program(input));
    all.extend(flows(input));
    all.extend(group::families(input));
    all.extend(cluster::families(input));
    all.push(map_updates(input));
    all.extend(reload(input));
    all.into_iter().filter_map(Family::finish).collect()
}

fn build_info() -> Family {
    let mut family = Family::gauge("xlb_build_info", "Version of the daemon; always 1.");
    family.set(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    family
}

fn active(input: &Input) -> Family {
    let mut family = Family::gauge(
        "xlb_active",
        "0 if this node is standby: none of the listen addresses is on this host.",
    );
    family.set(&[], truth(input.state != Presence::Standby));
    family
}

fn announced(input: &Input) -> Family {
    let mut family = Family::gauge(
        "xlb_announced",
        "1 if the listen address or source is on the device of [announce], so that routers learn it.",
    );
    for (address, is_announced) in &input.announced {
        family.set(&[("address", &address.to_string())], truth(*is_announced));
    }
    family
}

fn service_info(input: &Input) -> Family {
    let mut family = Family::gauge(
        "xlb_service_info",
        "A service's listen address, protocol, mode and scheduler; always 1.",
    );
    for Service { view, .. } in &input.services {
        for listen in &view.listen {
            let labels = [
                ("service", view.name.as_str()),
                ("address", &listen.ip().to_string()),
                ("port", &listen.port().to_string()),
                ("protocol", view.protocol.name()),
                ("mode", view.mode.name()),
                ("scheduler", view.scheduler.name()),
            ];
            family.set(&labels, 1.0);
        }
    }
    family
}

fn service_ready(input: &Input) -> Family {
    let mut family = Family::gauge("xlb_service_ready", "1 if the service has its quorum of backends.");
    for Service { view, .. } in &input.services {
        family.set(&[("service", &view.name)], truth(view.ready));
    }
    family
}

fn service_active(input: &Input) -> Family {
    let mut family =
        Family::gauge("xlb_service_active", "1 if all listen addresses of the service are on this host.");
    for Service { view, .. } in &input.services {
        family.set(&[("service", &view.name)], truth(view.state == Presence::Active));
    }
    family
}

fn service_panic(input: &Input) -> Family {
    let mut family = Family::gauge(
        "xlb_service_panic",
        "1 if health is ignored, because too few backends of the family are up (panic_threshold).",
    );
    for Service { view, panic, .. } in &input.services {
        for (version, is_in_panic) in panic {
            family.set(&[("service", &view.name), ("family", ip_family(*version))], truth(*is_in_panic));
        }
    }
    family
}

fn backend_info(input: &Input) -> Family {
    let mut family = Family::gauge("xlb_backend_info", "A backend's address; always 1.");
    for Backend { view, .. } in backends(input) {
        let address = view.address.to_string();
        family.set(&[("service", &view.service), ("backend", &view.name), ("address", &address)], 1.0);
    }
    family
}

fn service_traffic(input: &Input) -> [Family; 4] {
    let mut packets = Family::counter(
        "xlb_service_received_packets_total",
        "Packets from clients to the service, forwarded or dropped.",
    );
    let mut bytes = Family::counter(
        "xlb_service_received_bytes_total",
        "Frame bytes from clients to the service, forwarded or dropped.",
    );
    let mut new_flows = Family::counter("xlb_service_new_flows_total", "New flows assigned to a backend.");
    let mut retried_flows =
        Family::counter("xlb_retried_flows_total", "New flows of clients that another backend had refused.");
    for Service { view, received, new_flows: made, retried_flows: retried, .. } in &input.services {
        let labels = [("service", view.name.as_str())];
        packets.count(&labels, received.packets);
        bytes.count(&labels, received.bytes);
        new_flows.count(&labels, *made);
        retried_flows.count(&labels, *retried);
    }
    [packets, bytes, new_flows, retried_flows]
}

#[rustfmt::skip]
fn backend_traffic(input: &Input) -> [Family; 7] {
    type Value = fn(&BackendCounters) -> u64;
    let families: [(&str, &str, Value); 7] = [
        ("xlb_backend_forwarded_packets_total", "Packets sent to the backend.", |it| it.forwarded.packets),
        ("xlb_backend_forwarded_bytes_total", "Frame bytes sent to the backend.", |it| it.forwarded.bytes),
        ("xlb_backend_returned_packets_total", "Replies of the backend sent to clients.", |it| it.returned.packets),
        ("xlb_backend_returned_bytes_total", "Frame bytes of the backend's replies sent to clients.", |it| it.returned.bytes),
        ("xlb_backend_new_flows_total", "New flows assigned to the backend.", |it| it.new_flows),
        ("xlb_backend_refused_total", "New TCP flows that the backend refused by RST.", |it| it.refused),
        ("xlb_backend_unanswered_total", "SYNs that clients repeated because the backend did not answer.", |it| it.unanswered),
    ];
    families.map(|(name, help, value)| {
        let mut family = Family::counter(name, help);
        for Backend { view, counters, .. } in backends(input) {
            family.count(&[("service", &view.service), ("backend", &view.name)], value(counters));
        }
        family
    })
}

fn backend_state(input: &Input) -> [Family; 6] {
    let mut flows = Family::gauge("xlb_backend_flows", "Current flows of the backend.");
    let mut weight = Family::gauge("xlb_backend_weight", "Weight of the backend; 0: no new flows.");
    let mut up = Family::gauge("xlb_backend_up", "1 if the backend is up or has no health check.");
    let mut ejected = Family::gauge(
        "xlb_backend_ejected",
        "1 if the backend is ejected because it did not accept its last new flows.",
    );
    let mut admin_state = Family::gauge(
        "xlb_backend_admin_state",
        "1 for the administrative state of the backend, 0 for the others.",
    );
    let mut changes =
        Family::counter("xlb_backend_state_changes_total", "Changes of the backend between up and down.");
    for Backend { view, state_changes, .. } in backends(input) {
        let labels = [("service", view.service.as_str()), ("backend", view.name.as_str())];
        flows.set(&labels, view.flows as f64);
        weight.set(&labels, f64::from(view.weight));
        up.set(&labels, truth(view.health == Health::Up));
        ejected.set(&labels, truth(view.ejected));
        for &state in AdminState::ALL {
            let labels = [labels[0], labels[1], ("state", state.name())];
            admin_state.set(&labels, truth(view.admin_state == state));
        }
        changes.count(&labels, *state_changes);
    }
    [flows, weight, up, ejected, admin_state, changes]
}

fn roles(input: &Input) -> [Family; 3] {
    let mut role =
        Family::gauge("xlb_backend_role", "1 for the role of the database server, 0 for the others.");
    let mut lag = Family::gauge("xlb_backend_lag_seconds", "How old the data of the replica may be.");
    let mut fenced = Family::gauge(
        "xlb_service_fenced",
        "1 if the service is fenced: new flows are refused until there is a newer primary.",
    );
    for Backend { view, .. } in backends(input) {
        let labels = [("service", view.service.as_str()), ("backend", view.name.as_str())];
        if let Some(current) = view.role {
            for &each in BackendRole::ALL {
                role.set(&[labels[0], labels[1], ("role", each.name())], truth(current == each));
            }
        }
        if let Some(lag_ms) = view.lag_ms {
            lag.set(&labels, lag_ms as f64 / 1000.0);
        }
    }
    for service in &input.services {
        if let Some(is_fenced) = service.fenced {
            fenced.set(&[("service", &service.view.name)], truth(is_fenced));
        }
    }
    [role, lag, fenced]
}

fn health_checks(input: &Input) -> [Family; 2] {
    let mut results = Family::counter("xlb_health_checks_total", "Completed health checks, by result.");
    let mut durations = Family::histogram(
        "xlb_health_check_duration_seconds",
        "Duration of health checks, including those that timed out.",
    );
    for Backend { view, checks, .. } in backends(input) {
        let Some(checks) = checks else { continue };
        let labels = [("service", view.service.as_str()), ("backend", view.name.as_str())];
        for &outcome in ProbeOutcome::ALL {
            let labels = [labels[0], labels[1], ("result", outcome.name())];
            results.count(&labels, checks.results.get(&outcome).copied().unwrap_or_default());
        }
        durations.distribute(&labels, checks.durations.to_histogram());
    }
    [results, durations]
}

fn certificates(input: &Input) -> Family {
    let mut family = Family::gauge(
        "xlb_backend_certificate_expiry_timestamp_seconds",
        "When the first certificate of the server's chain ends.",
    );
    for Backend { view, certificate_ends, .. } in backends(input) {
        let since_epoch = certificate_ends.and_then(|ends| ends.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(age) = since_epoch {
            family.set(&[("service", &view.service), ("backend", &view.name)], age.as_secs_f64());
        }
    }
    family
}

fn program(input: &Input) -> [Family; 4] {
    let mut attached =
        Family::gauge("xlb_program_attached", "1 if the XDP program is attached to the interface, else 0.");
    let mut actions = Family::counter("xlb_xdp_packets_total", "Packets received, by XDP action.");
    for interface in &input.interfaces {
        let name = ("interface", interface.view.name.as_str());
        attached.set(&[name, ("mode", interface.view.mode.name())], truth(interface.view.attached));
        actions.count(&[name, ("action", "pass")], interface.actions.passed);
        actions.count(&[name, ("action", "drop")], interface.actions.dropped);
        actions.count(&[name, ("action", "tx")], interface.actions.transmitted);
        actions.count(&[name, ("action", "redirect")], interface.actions.redirected);
        actions.count(&[name, ("action", "reject")], interface.actions.rejected);
    }

    let mut packets = Family::counter("xlb_dropped_packets_total", "Packets dropped or rejected, by reason.");
    let mut bytes = Family::counter("xlb_dropped_bytes_total", "Frame bytes dropped or rejected, by reason.");
    for reason in Reason::ALL.iter().filter(|reason| reason.action() == Action::Drop) {
        let Tally { packets: dropped, bytes: size } = input.reasons.get(reason).copied().unwrap_or_default();
        packets.count(&[("reason", reason.name())], dropped);
        bytes.count(&[("reason", reason.name())], size);
    }
    [attached, actions, packets, bytes]
}

fn flows(input: &Input) -> [Family; 2] {
    let mut held = Family::gauge(
        "xlb_flows",
        "Flows in the flow table of a family, by state; closed flows are not counted.",
    );
    let mut most = Family::gauge("xlb_flows_max", "Maximum number of flows in the flow table of a family.");
    for FlowTable { family, flows, established_max, half_open_max } in &input.flow_tables {
        let family = ("family", ip_family(*family));
        held.set(&[family, ("state", "half_open")], flows.half_open as f64);
        held.set(&[family, ("state", "established")], flows.established as f64);
        held.set(&[family, ("state", "closing")], flows.closing as f64);
        most.set(&[family, ("state", "half_open")], *half_open_max as f64);
        most.set(&[family, ("state", "established")], *established_max as f64);
    }
    [held, most]
}

const fn ip_family(family: rules::Family) -> &'static str {
    match family {
        rules::Family::V4 => "ipv4",
        rules::Family::V6 => "ipv6",
    }
}

fn map_updates(input: &Input) -> Family {
    let mut family = Family::counter("xlb_map_updates_total", "Changes of the contents of the maps.");
    family.count(&[], input.map_updates);
    family
}

fn reload(input: &Input) -> [Family; 2] {
    let mut successful =
        Family::gauge("xlb_config_last_reload_successful", "1 if the last reload succeeded.");
    successful.set(&[], truth(input.last_reload_successful));

    let mut at = Family::gauge(
        "xlb_config_last_reload_success_timestamp_seconds",
        "When the configuration in use was read.",
    );
    let since_epoch = input.last_reload_success.duration_since(SystemTime::UNIX_EPOCH);
    at.set(&[], since_epoch.map_or(0.0, |age| age.as_secs_f64()));
    [successful, at]
}

fn backends(input: &Input) -> impl Iterator<Item = &Backend> {
    input.services.iter().flat_map(|service| &service.backends)
}

fn truth(fact: bool) -> f64 {
    if fact { 1.0 } else { 0.0 }
}
