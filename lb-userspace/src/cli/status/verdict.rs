//! Status for a monitoring system (Monitoring Plugins Development Guidelines: one line, exit 0 to 3).

use crate::{
    api::client,
    cli::{group, role},
    probe::Role,
    text::{counted, printable},
    view::{Presence, Status},
};

/// The number is the exit code.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    text: String,
}

impl Verdict {
    pub fn line(&self) -> String {
        let level = match self.level {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
            Level::Unknown => "UNKNOWN",
        };
        // Text after a vertical bar is parsed as performance data.
        format!("XLB {level}: {}", printable(&self.text).replace('|', "/"))
    }
}

/// The verdict on a daemon that answers.
pub fn of(status: &Status) -> Verdict {
    let critical = not_serving(status);
    let warnings = impaired(status);
    let (level, findings) = match (critical.is_empty(), warnings.is_empty()) {
        (false, _) => (Level::Critical, [critical, warnings].concat()),
        (true, false) => (Level::Warning, warnings),
        (true, true) => {
            let up: u32 = status.services.iter().map(|service| service.backends_up).sum();
            let standby = if status.node.state == Presence::Standby { "standby, " } else { "" };
            (
                Level::Ok,
                vec![format!(
                    "{standby}{}, {} up",
                    counted(status.services.len() as u64, "service"),
                    counted(u64::from(up), "backend")
                )],
            )
        }
    };
    Verdict { level, text: findings.join("; ") }
}

pub fn unknown(error: &client::Error) -> Verdict {
    Verdict { level: Level::Unknown, text: error.to_string() }
}

fn not_serving(status: &Status) -> Vec<String> {
    let detached = status.interfaces.iter().filter(|interface| !interface.attached);
    let detached = detached.map(|interface| format!("not attached to {}", interface.name));
    let dead = status.services.iter().filter(|service| service.backends_serving == 0);
    let dead = dead.map(|service| {
        let role = status.roles.iter().find(|it| it.service == service.name && it.primary.is_none());
        match role.filter(|it| it.role == Role::Primary) {
            Some(role) => format!("{}: {}", role.service, role::state(role)),
            None => format!("{} has no backend that can take new flows", service.name),
        }
    });
    let unready = status.services.iter().filter(|service| !service.ready && service.backends_serving > 0);
    let unready = unready.map(|it| {
        format!("{} is not ready: {} available, quorum {}", it.name, it.backends_available, it.quorum)
    });
    detached.chain(dead).chain(unready).collect()
}

fn impaired(status: &Status) -> Vec<String> {
    let down = status.services.iter().filter(|it| it.backends_up < it.backends && it.backends_serving > 0);
    let down = down.map(|it| format!("{}: {} of {} backends up", it.name, it.backends_up, it.backends));
    let reload = (!status.last_reload_successful).then(|| "the last reload failed".to_owned());
    let drained = status.node.drained.then(|| "this node is drained: `xlb ha ready` ends that".to_owned());
    let lost = status.group.iter().flat_map(group::lost);
    down.chain(reload).chain(drained).chain(lost).chain(status.warnings.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use lb_common::quiet::Quiet;

    use super::*;
    use crate::{
        group::status::{GroupStatus, PeerStatus},
        spec::LinkMode,
        view::{FlowCount, Group, Interface, Node, PrimaryState, ServiceRole, ServiceSummary},
    };

    #[test]
    fn the_worst_finding_decides() {
        type Change = fn(&mut Status);
        let cases: [(Change, Level, &str); 11] = [
            (|it| it.node.state = Presence::Standby, Level::Ok, "XLB OK: standby, 1 service, 2 backends up"),
            (|_| {}, Level::Ok, "XLB OK: 1 service, 2 backends up"),
            (|it| it.services[0].backends_up = 1, Level::Warning, "XLB WARNING: web: 1 of 2 backends up"),
            (
                |it| it.node.drained = true,
                Level::Warning,
                "XLB WARNING: this node is drained: `xlb ha ready` ends that",
            ),
            (
                |it| it.group = Some(with_a_lost_peer()),
                Level::Warning,
                "XLB WARNING: peer lb-3 is not connected",
            ),
            (|it| it.last_reload_successful = false, Level::Warning, "XLB WARNING: the last reload failed"),
            (|it| it.warnings.push("a | b".into()), Level::Warning, "XLB WARNING: a / b"),
            (
                |it| it.services[0].backends_serving = 0,
                Level::Critical,
                "XLB CRITICAL: web has no backend that can take new flows",
            ),
            (
                |it| {
                    it.services[0].backends_serving = 0;
                    it.roles = vec![without_primary()];
                },
                Level::Critical,
                "XLB CRITICAL: web: no primary for 5s: fenced by the operator",
            ),
            (
                |it| {
                    let web = &mut it.services[0];
                    (web.ready, web.quorum, web.backends_up, web.backends_available) = (false, 2, 1, 1);
                },
                Level::Critical,
                "XLB CRITICAL: web is not ready: 1 available, quorum 2; web: 1 of 2 backends up",
            ),
            (
                |it| {
                    it.interfaces[0].attached = false;
                    it.warnings.push("odd".into());
                },
                Level::Critical,
                "XLB CRITICAL: not attached to eth0; odd",
            ),
        ];
        for (change, level, line) in cases {
            let mut status = good();
            change(&mut status);

            let verdict = of(&status);

            assert_eq!((verdict.level, verdict.line().as_str()), (level, line));
        }
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_unknown_and_said() {
        let silent = client::Error::TimedOut {
            question: "GET /v1/status".to_owned(),
            limit: std::time::Duration::from_secs(5),
        };

        let verdict = unknown(&silent);

        assert_eq!(verdict.level, Level::Unknown);
        assert_eq!(verdict.line(), "XLB UNKNOWN: GET /v1/status: no answer from the daemon within 5s");
    }

    fn without_primary() -> ServiceRole {
        ServiceRole {
            service: "web".into(),
            role: Role::Primary,
            state: PrimaryState::Fenced,
            primary: None,
            since_seconds: 5,
            fenced: true,
            forced: None,
            cluster: None,
            term: None,
            servers: Vec::new(),
        }
    }

    fn with_a_lost_peer() -> Group {
        let peer = |node: &str, is_subscribed| PeerStatus {
            node: node.into(),
            is_connected: true,
            is_subscribed,
            ..PeerStatus::default()
        };
        let peers = vec![peer("lb-2", true), peer("lb-3", false)];
        Group::of(&GroupStatus { peers, ..GroupStatus::default() }, Quiet::No, SystemTime::UNIX_EPOCH)
    }

    fn good() -> Status {
        Status {
            version: "0.1.0".into(),
            uptime_seconds: 1,
            config: "/etc/xlb/xlb.toml".into(),
            interfaces: vec![Interface {
                name: "eth0".into(),
                index: 2,
                mode: Some(LinkMode::Native),
                attached: true,
                mtu: 1500,
            }],
            node: Node::default(),
            group: None,
            cluster: None,
            roles: Vec::new(),
            services: vec![ServiceSummary {
                name: "web".into(),
                backends_up: 2,
                backends: 2,
                backends_serving: 2,
                ready: true,
                state: Presence::Active,
                quorum: 1,
                backends_available: 2,
            }],
            flows: FlowCount::default(),
            overlay: vec![],
            warnings: vec![],
            last_reload_successful: true,
            last_reload_error: None,
            map_memory_bytes: 0,
            services_max: 0,
            backends_max: 0,
            slots: 0,
            slots_max: 0,
        }
    }
}
