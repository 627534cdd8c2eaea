//! The health check of one service: its own keys, else the defaults' keys, else what is written here.

use std::time::Duration;

use lb_common::net::Protocol;

use crate::{
    duration,
    spec::{
        HealthCheck, Probe,
        file::{self, Check, Health},
        mistakes::Report,
        table::Given,
    },
};

const INTERVAL: Duration = Duration::from_secs(1);
/// Or the interval, where that is shorter.
const TIMEOUT: Duration = Duration::from_secs(1);
const RISE: u32 = 2;
const FALL: u32 = 3;

/// `None` where backends are not checked.
pub fn validate(service: &file::Service, defaults: &Health, report: &Report<'_>) -> Option<HealthCheck> {
    let own = &service.health;
    let health = merge(own.clone(), defaults.clone());
    match health.check.meant(Check::Tcp) {
        Some(Check::Tcp) => {
            has_no_use_for(&[("path", &own.path), ("host", &own.host)], "tcp", report);
            ends_in_time(own, &health, report);
            has_a_port(service, &health, report);
        }
        Some(Check::Http) => {
            ends_in_time(own, &health, report);
            has_a_port(service, &health, report);
        }
        Some(Check::None) => has_no_use_for(&[("path", &own.path), ("host", &own.host)], "none", report),
        None => {}
    }

    let probe = match health.check.or(Check::Tcp) {
        Check::None => return None,
        Check::Tcp => Probe::Tcp,
        Check::Http => Probe::Http { path: health.path.or("/".to_owned()), host: health.host.value() },
    };
    let interval = health.interval.or(INTERVAL);
    Some(HealthCheck {
        probe,
        interval,
        timeout: health.timeout.or(TIMEOUT.min(interval)),
        rise: health.rise.or(RISE),
        fall: health.fall.or(FALL),
        port: health.port.value(),
    })
}

fn merge(own: Health, defaults: Health) -> Health {
    Health {
        check: own.check.or_inherit(defaults.check),
        interval: own.interval.or_inherit(defaults.interval),
        timeout: own.timeout.or_inherit(defaults.timeout),
        rise: own.rise.or_inherit(defaults.rise),
        fall: own.fall.or_inherit(defaults.fall),
        port: own.port.or_inherit(defaults.port),
        path: own.path.or_inherit(defaults.path),
        host: own.host.or_inherit(defaults.host),
    }
}

/// Keys that a service gives to another type of check are a misunderstanding; those that it inherits wait for their use.
fn has_no_use_for(keys: &[(&str, &Given<String>)], check: &str, report: &Report<'_>) {
    for (key, given) in keys {
        if let Given::Good(it) = given {
            report.add(
                it.span,
                format!("`{key}` belongs to type = \"http\", and this check's type is `{check}`"),
            );
        }
    }
}

/// A check that outlives its interval would put off the end of a silent backend beyond `fall` * `interval` + `timeout`.
fn ends_in_time(own: &Health, health: &Health, report: &Report<'_>) {
    let (Given::Good(timeout), Some(interval)) = (&health.timeout, health.interval.meant(INTERVAL)) else {
        return;
    };
    if timeout.value > interval {
        // Of the two, the one that this service wrote is the one to change.
        let place = match (&own.timeout, &own.interval) {
            (Given::Absent, Given::Good(interval)) => interval.span,
            (Given::Absent | Given::Wrong | Given::Good(_), _) => timeout.span,
        };
        let (timeout, interval) = (duration::show(timeout.value), duration::show(interval));
        report.add(
            place,
            format!("timeout {timeout} is longer than interval {interval}: checks would overlap"),
        );
    }
}

/// UDP has no connect that could fail.
fn has_a_port(service: &file::Service, health: &Health, report: &Report<'_>) {
    let Given::Good(protocol) = &service.protocol else { return };
    if protocol.value == Protocol::Udp && matches!(health.port, Given::Absent) {
        let message = "a udp service is checked over tcp: \
                       give [service.health] a `port` that answers there, or type = \"none\"";
        report.add(protocol.span, message);
    }
}
