//! Three nodes: the second is well, the third is gone and has another configuration.

use std::time::{Duration, SystemTime};

use lb_common::quiet::Quiet;

use crate::{
    group::status::{GroupStatus, PeerStatus},
    view,
};

pub fn group() -> view::Group {
    let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
    let status = GroupStatus {
        node: "lb-1".to_owned(),
        listen: Some("10.0.0.1:4790".parse().unwrap()),
        ports: (0, 3),
        is_learning: false,
        events_lost: 2,
        refused: 4,
        peers: vec![second(now), third(now)],
    };
    view::Group::of(&status, Quiet::Always, now)
}

fn second(now: SystemTime) -> PeerStatus {
    PeerStatus {
        node: "lb-2".to_owned(),
        address: Some("10.0.0.2:4790".parse().unwrap()),
        is_connected: true,
        is_heard: true,
        since: Some(now - Duration::from_secs(3_725)),
        failure: None,
        is_complete: true,
        held: 1_204,
        received: 73_042,
        ended: 1_112,
        skipped: [("no_service", 0)].into(),
        is_subscribed: true,
        sent: 68_140,
        computed: 40_960,
        resyncs: 0,
        lag: Duration::from_micros(1_500),
        differs: Some(Vec::new()),
        same_hash_key: Some(true),
        clock_difference_ms: Some(3),
        source_ports_overlap: Some(false),
    }
}

fn third(now: SystemTime) -> PeerStatus {
    PeerStatus {
        node: "lb-3".to_owned(),
        address: Some("10.0.0.3:4790".parse().unwrap()),
        is_connected: false,
        is_heard: false,
        since: Some(now - Duration::from_secs(90)),
        failure: Some("Connection refused (os error 111)".to_owned()),
        is_complete: false,
        held: 17,
        received: 64,
        ended: 5,
        skipped: [("no_service", 12)].into(),
        is_subscribed: true,
        sent: 68_100,
        computed: 0,
        resyncs: 3,
        lag: Duration::from_millis(2_500),
        differs: Some(vec![
            "web".to_owned(),
            "mail (only here)".to_owned(),
            "dns\u{1b}[2J (only there)".to_owned(),
        ]),
        same_hash_key: Some(false),
        clock_difference_ms: Some(-1_600),
        source_ports_overlap: Some(true),
    }
}
