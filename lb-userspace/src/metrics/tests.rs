//! The complete text, Prometheus' linter, and the document.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use lb_common::{
    net::Protocol,
    service::{Mode, Reject},
};

use super::*;
use crate::cluster::Revision;
use crate::group::status::PeerStatus;
use crate::spec::{AdminState, LinkMode, OnDown, OnRefused, Scheduler, rules::Family};

#[test]
fn the_text_has_each_family_with_its_labels() {
    let text = render(&Input { process: Vec::new(), ..input() }).unwrap();

    for line in [
        concat!("xlb_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        r#"xlb_service_info{service="web",address="192.0.2.10",port="80",protocol="tcp",mode="full-nat",scheduler="round-robin"} 1"#,
        r#"xlb_service_info{service="web",address="2001:db8::10",port="80",protocol="tcp",mode="full-nat",scheduler="round-robin"} 1"#,
        "xlb_map_updates_total 7",
        r#"xlb_announced{address="192.0.2.10"} 1"#,
        r#"xlb_announced{address="10.0.0.1"} 0"#,
        r#"xlb_service_ready{service="web"} 0"#,
        r#"xlb_service_panic{service="web",family="ipv4"} 1"#,
        r#"xlb_service_panic{service="web",family="ipv6"} 0"#,
        r#"xlb_backend_info{service="web",backend="web-1",address="10.0.0.11:8080"} 1"#,
        "# TYPE xlb_service_received_packets_total counter",
        r#"xlb_service_received_packets_total{service="web"} 12"#,
        r#"xlb_service_received_bytes_total{service="web"} 1200"#,
        r#"xlb_service_new_flows_total{service="web"} 3"#,
        r#"xlb_backend_forwarded_packets_total{service="web",backend="web-1"} 10"#,
        r#"xlb_backend_forwarded_bytes_total{service="web",backend="web-1"} 1000"#,
        r#"xlb_backend_returned_packets_total{service="web",backend="web-1"} 9"#,
        r#"xlb_backend_returned_bytes_total{service="web",backend="web-1"} 9000"#,
        r#"xlb_backend_new_flows_total{service="web",backend="web-1"} 3"#,
        r#"xlb_backend_flows{service="web",backend="web-1"} 2"#,
        r#"xlb_backend_weight{service="web",backend="web-1"} 100"#,
        r#"xlb_backend_up{service="web",backend="web-1"} 1"#,
        r#"xlb_backend_up{service="web",backend="web-2"} 0"#,
        r#"xlb_backend_admin_state{service="web",backend="web-1",state="ready"} 0"#,
        r#"xlb_backend_admin_state{service="web",backend="web-1",state="drain"} 1"#,
        r#"xlb_backend_admin_state{service="web",backend="web-1",state="maint"} 0"#,
        r#"xlb_backend_state_changes_total{service="web",backend="web-1"} 4"#,
        r#"xlb_health_checks_total{service="web",backend="web-1",result="success"} 7"#,
        r#"xlb_health_checks_total{service="web",backend="web-1",result="failure"} 0"#,
        "# TYPE xlb_health_check_duration_seconds histogram",
        r#"xlb_health_check_duration_seconds_bucket{service="web",backend="web-1",le="0.001"} 0"#,
        r#"xlb_health_check_duration_seconds_bucket{service="web",backend="web-1",le="0.0025"} 1"#,
        r#"xlb_health_check_duration_seconds_bucket{service="web",backend="web-1",le="+Inf"} 1"#,
        r#"xlb_health_check_duration_seconds_sum{service="web",backend="web-1"} 0.002"#,
        r#"xlb_xdp_packets_total{interface="eth0",action="pass"} 1"#,
        r#"xlb_xdp_packets_total{interface="eth0",action="drop"} 2"#,
        r#"xlb_xdp_packets_total{interface="eth0",action="tx"} 3"#,
        r#"xlb_xdp_packets_total{interface="eth0",action="redirect"} 4"#,
        r#"xlb_dropped_packets_total{reason="no_backend"} 2"#,
        r#"xlb_dropped_bytes_total{reason="no_backend"} 120"#,
        r#"xlb_dropped_packets_total{reason="fragment"} 0"#,
        r#"xlb_flows{family="ipv4",state="half_open"} 1"#,
        r#"xlb_flows{family="ipv4",state="established"} 2"#,
        r#"xlb_flows{family="ipv4",state="closing"} 0"#,
        r#"xlb_flows{family="ipv6",state="established"} 3"#,
        r#"xlb_flows_max{family="ipv4",state="established"} 262144"#,
        r#"xlb_flows_max{family="ipv6",state="established"} 65536"#,
        r#"xlb_flows_max{family="ipv6",state="half_open"} 65536"#,
        r#"xlb_program_attached{interface="eth0",mode="generic"} 1"#,
        r#"xlb_group_peer_connected{peer="lb-2"} 1"#,
        r#"xlb_group_peer_connected{peer="lb-3"} 0"#,
        r#"xlb_group_flows_held{peer="lb-2"} 4"#,
        r#"xlb_group_lag_seconds{peer="lb-2"} 0.25"#,
        r#"xlb_group_flows_sent_total{peer="lb-2"} 5"#,
        r#"xlb_group_flows_received_total{peer="lb-2"} 6"#,
        r#"xlb_group_peer_flows_computed_total{peer="lb-2"} 11"#,
        r#"xlb_group_resyncs_total{peer="lb-2"} 7"#,
        r#"xlb_group_flows_skipped_total{peer="lb-2",reason="no_service"} 8"#,
        "xlb_group_events_lost_total 9",
        "xlb_group_connections_refused_total 3",
        "xlb_cluster_connected 1",
        "xlb_cluster_current 0",
        r#"xlb_cluster_revision{part="services"} 12"#,
        r#"xlb_cluster_revision{part="changes"} 0"#,
        "xlb_config_last_reload_successful 0",
        "xlb_config_last_reload_success_timestamp_seconds 1700000000.5",
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    }
}

#[test]
fn passed_packets_are_not_counted_as_dropped() {
    let text = render(&input()).unwrap();

    assert!(!text.contains(r#"reason="not_service""#));
}

#[test]
fn a_backend_without_checks_has_no_check_series() {
    let text = render(&input()).unwrap();

    assert!(!text.lines().any(|line| line.starts_with("xlb_health_check") && line.contains("web-2")));
}

#[test]
fn hostile_names_stay_within_their_quotes() {
    let mut input = input();
    input.services[0].backends.truncate(1);
    input.services[0].backends[0].view.name = "a\"} 1\nxlb_evil 2\\".to_owned();

    let text = render(&input).unwrap();

    assert!(text.contains(r#"backend="a\"} 1\nxlb_evil 2\\""#), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("xlb_evil")));
}

#[test]
fn an_empty_configuration_gives_a_valid_text() {
    let mut input = input();
    input.services.clear();
    input.interfaces.clear();
    input.group = None;
    input.cluster = None;

    let text = render(&input).unwrap();

    assert!(
        text.contains("xlb_build_info")
            && !text.contains("xlb_backend_up")
            && !text.contains("xlb_group")
            && !text.contains("xlb_cluster")
    );
    assert!(text.contains("process_resident_memory_bytes"));
}

#[test]
fn each_family_and_each_reason_is_in_the_document() {
    let document = include_str!("../../../docs/metrics.md");

    for family in families(&input()) {
        assert!(
            document.contains(&format!("`{}`", family.name())),
            "docs/metrics.md lacks {}",
            family.name()
        );
    }
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} |", reason.name(), reason.about());
        assert!(document.contains(&row), "docs/metrics.md lacks {row}");
    }
}

#[test]
fn promtool_accepts_the_text() {
    let Some(mut promtool) = promtool(&["check", "metrics"]) else { return };

    promtool.stdin.take().unwrap().write_all(render(&input()).unwrap().as_bytes()).unwrap();

    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn alerts_fire_as_their_unit_tests_expect() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus-rules-test.yml");
    let Some(promtool) = promtool(&["test", "rules", tests]) else { return };

    let output = promtool.wait_with_output().unwrap();

    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn each_alert_has_a_unit_test_in_which_it_fires() {
    let rules = include_str!("../../../deploy/prometheus-rules.yml");
    let tests = include_str!("../../../deploy/prometheus-rules-test.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let firing: Vec<&str> =
        tests.lines().filter_map(|line| line.trim().strip_prefix("- alertname: ")).collect();

    assert!(alerts.len() > 5, "{alerts:?}");
    for alert in alerts {
        assert!(firing.contains(&alert), "deploy/prometheus-rules-test.yml lacks {alert}");
    }
}

#[test]
fn alerts_use_existing_metrics() {
    let rules = include_str!("../../../deploy/prometheus-rules.yml");
    let (families, reasons) = (families(&input()), Reason::ALL.iter().map(|reason| reason.name()));
    let known: Vec<&str> = families.iter().map(|family| family.name()).chain(reasons).collect();
    let expressions = rules.lines().filter(|line| line.trim_start().starts_with("expr:"));
    let words = expressions.flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    let asked: Vec<&str> = words.filter(|word| word.contains('_')).collect();

    assert!(asked.len() > 6, "{asked:?}");
    for word in asked {
        assert!(known.contains(&word), "deploy/prometheus-rules.yml asks for {word}");
    }
}

/// Starts promtool, if it is installed.
fn promtool(arguments: &[&str]) -> Option<Child> {
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = promtool.spawn();
    if started.is_err() {
        // Not captured by the test runner: a test that was skipped must be visible.
        writeln!(std::io::stderr(), "NOT RUN: promtool is not installed (Debian: prometheus)").unwrap();
    }
    started.ok()
}

fn input() -> Input {
    let mut checks = Checks::default();
    checks.results.insert(ProbeOutcome::Success, 7);
    checks.durations.observe(Duration::from_millis(2));
    let counters = BackendCounters {
        forwarded: Tally { packets: 10, bytes: 1000 },
        returned: Tally { packets: 9, bytes: 9000 },
        new_flows: 3,
        refused: 5,
        unanswered: 6,
    };
    let up = Backend {
        view: backend("web-1", view::Health::Up, AdminState::Drain),
        counters,
        state_changes: 4,
        checks: Some(checks),
        certificate_ends: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
    };
    let down = Backend {
        view: backend("web-2", view::Health::Unknown, AdminState::Ready),
        counters: BackendCounters::default(),
        state_changes: 0,
        checks: None,
        certificate_ends: None,
    };

    Input {
        state: Presence::Active,
        announced: vec![("192.0.2.10".parse().unwrap(), true), ("10.0.0.1".parse().unwrap(), false)],
        services: vec![Service {
            view: service(),
            received: Tally { packets: 12, bytes: 1200 },
            new_flows: 3,
            retried_flows: 4,
            fenced: Some(true),
            panic: vec![(Family::V4, true), (Family::V6, false)],
            backends: vec![up, down],
        }],
        group: Some(Arc::new(group())),
        cluster: Some(cluster()),
        interfaces: vec![Interface {
            view: view::Interface {
                name: "eth0".to_owned(),
                index: 2,
                mode: Some(LinkMode::Generic),
                attached: true,
                mtu: 1500,
            },
            actions: ActionCounters { passed: 1, dropped: 2, transmitted: 3, redirected: 4, rejected: 5 },
        }],
        flow_tables: [
            FlowTable {
                family: Family::V4,
                flows: Flows { half_open: 1, established: 2, closing: 0, reset: 0 },
                established_max: 262_144,
                half_open_max: 65_536,
            },
            FlowTable {
                family: Family::V6,
                flows: Flows { half_open: 0, established: 3, closing: 0, reset: 0 },
                established_max: 65_536,
                half_open_max: 65_536,
            },
        ],
        reasons: [
            (Reason::NoBackend, Tally { packets: 2, bytes: 120 }),
            (Reason::NotService, Tally { packets: 1, bytes: 60 }),
        ]
        .into(),
        map_updates: 7,
        last_reload_successful: false,
        last_reload_success: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
        process: process(),
    }
}

fn cluster() -> view::Cluster {
    let part = |in_force: Option<u64>| view::ClusterPart { in_force: in_force.map(Revision), stored: None };
    view::Cluster {
        node: "lb-1".to_owned(),
        connected: true,
        since_seconds: 0,
        failure: None,
        endpoint: None,
        document: part(Some(12)),
        changes: part(None),
        stored_by: None,
        stored_seconds_ago: None,
        refused: Some("it has errors".to_owned()),
        services_not_in_force: Vec::new(),
        nodes: Vec::new(),
    }
}

fn group() -> GroupStatus {
    let peer = PeerStatus {
        node: "lb-2".to_owned(),
        is_connected: true,
        held: 4,
        received: 6,
        skipped: [("no_service", 8)].into(),
        is_subscribed: true,
        sent: 5,
        computed: 11,
        resyncs: 7,
        lag: Duration::from_millis(250),
        ..PeerStatus::default()
    };
    let other = PeerStatus { node: "lb-3".to_owned(), is_connected: true, ..PeerStatus::default() };
    GroupStatus { events_lost: 9, refused: 3, peers: vec![peer, other], ..GroupStatus::default() }
}

fn service() -> view::Service {
    view::Service {
        name: "web".to_owned(),
        listen: vec!["192.0.2.10:80".parse().unwrap(), "[2001:db8::10]:80".parse().unwrap()],
        protocol: Protocol::Tcp,
        mode: Mode::FullNat,
        scheduler: Scheduler::RoundRobin,
        reject: Reject::Reset,
        share_flows: Default::default(),
        on_refused: OnRefused::Retry,
        on_down: OnDown::Keep,
        slow_start_seconds: 0.0,
        panic_threshold_percent: 0,
        peer_source: Vec::new(),
        source: vec![],
        state: Presence::Active,
        backends: 2,
        backends_up: 1,
        backends_serving: 1,
        ready: false,
        quorum: 2,
        backends_available: 1,
        flows: 2,
    }
}

fn backend(name: &str, health: view::Health, admin_state: AdminState) -> view::Backend {
    view::Backend {
        service: "web".to_owned(),
        name: name.to_owned(),
        address: "10.0.0.11:8080".parse().unwrap(),
        weight: 100,
        effective_weight: 100,
        backup: false,
        max_flows: 0,
        health,
        role: Some(view::BackendRole::Replica),
        lag_ms: Some(1_500),
        ejected: false,
        admin_state,
        flows: 2,
        drained: false,
    }
}
