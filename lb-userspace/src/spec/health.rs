//! `[service.health]`: its own keys; otherwise those of `[defaults.health]`; otherwise the defaults below.
//!
//! The keys here belong to every check. Those of one type are in its file under [`probe`](crate::probe).

use std::{collections::BTreeSet, time::Duration};

use lb_common::net::Protocol;
use toml::de::{DeTable, DeValue};

use super::{HealthCheck, exec::Programs, file};
use crate::{
    document::{
        AnyKey, Key, Keys, Layers,
        mistakes::{At, Report, Span},
        table::{Given, Table},
        value,
    },
    duration,
    named::Named,
    probe::{Kind, Probe},
};

const LEAST_INTERVAL: Duration = Duration::from_millis(10);
const MOST_INTERVAL: Duration = Duration::from_secs(3600);
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);
const MOST_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of consecutive results that change a backend's health.
const MOST_RESULTS: u32 = 100;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Or the interval, if that is shorter.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_RISE: u32 = 2;
const DEFAULT_FALL: u32 = 3;

/// `none` is `None`.
const TYPE: Key<Option<Kind>> = Key::new("type", |it| value::choice(it, "health check type", &[]));
const INTERVAL: Key<Duration> =
    Key::new("interval", |it| value::duration(it, LEAST_INTERVAL..=MOST_INTERVAL));
const TIMEOUT: Key<Duration> = Key::new("timeout", |it| value::duration(it, LEAST_TIMEOUT..=MOST_TIMEOUT));
const RISE: Key<u32> = Key::new("rise", results);
const FALL: Key<u32> = Key::new("fall", results);
const PORT: Key<u16> = Key::new("port", value::port);
const KEYS: [&dyn AnyKey; 6] = [&TYPE, &INTERVAL, &TIMEOUT, &RISE, &FALL, &PORT];

/// What looks like a key, and what to do instead.
const NO_KEYS: [(&str, &str); 2] = [("password", PASSWORD), ("passwd", PASSWORD)];
const PASSWORD: &str = "a password is in a file of its own, set `password_file`";

/// Checks each value of a table by itself.
pub fn read(mut table: Table<'_>) -> &DeTable<'_> {
    let of_types = Kind::ALL.iter().flat_map(|kind| kind.keys());
    let mut seen = BTreeSet::new();
    for key in KEYS.iter().chain(of_types).filter(|key| seen.insert(key.name())) {
        table.judge(*key);
    }
    let entries = table.entries();
    table.close_with(&NO_KEYS);
    entries
}

/// `None`: backends are not checked.
pub fn validate(service: &file::Service<'_>, programs: Programs, report: &Report<'_>) -> Option<HealthCheck> {
    let keys = &service.health;
    let kind = keys.get(&TYPE).or_if_absent(Some(Kind::Tcp))?;
    has_no_keys_of_other_types(keys, kind, report);
    let kind = kind?;
    ends_in_time(keys, report);
    let place = keys.own_place(&TYPE).unwrap_or(service.header);
    let probe = kind.read(&Keys { layers: *keys, report, place });
    if kind == Kind::Exec {
        // Of the defaults, if the service inherits it.
        let place = keys.get(&TYPE).good().map_or(place, |it| it.span);
        may_run(programs, place, report);
    }
    has_a_port(service, &probe, report);

    let interval = keys.get(&INTERVAL).or(DEFAULT_INTERVAL);
    Some(HealthCheck {
        probe,
        interval,
        timeout: keys.get(&TIMEOUT).or(DEFAULT_TIMEOUT.min(interval)),
        rise: keys.get(&RISE).or(DEFAULT_RISE),
        fall: keys.get(&FALL).or(DEFAULT_FALL),
        port: keys.get(&PORT).value(),
    })
}

/// A key of a different check type is an error in the service's own table. An inherited one is ignored: it is for other
/// services.
fn has_no_keys_of_other_types(keys: &Layers<'_>, kind: Option<Kind>, report: &Report<'_>) {
    let has = |kind: Kind, key: &dyn AnyKey| kind.keys().iter().any(|it| it.name() == key.name());
    let name = kind.name();
    let mut seen = BTreeSet::new();
    for key in Kind::ALL.iter().flat_map(|kind| kind.keys()).filter(|key| seen.insert(key.name())) {
        if kind.is_some_and(|kind| has(kind, *key)) {
            continue;
        }
        let Some(place) = keys.own_place(*key) else { continue };
        let owners: Vec<_> =
            Kind::ALL.iter().filter(|kind| has(**kind, *key)).map(|kind| kind.name()).collect();
        let (key, owners) = (key.name(), owners.join("\" or \""));
        report
            .add(place, format!("`{key}` needs type = \"{owners}\", but the type of this check is `{name}`"));
    }
}

/// A timeout longer than the interval would delay the detection of a silent backend beyond `fall` * `interval` +
/// `timeout`.
fn ends_in_time(keys: &Layers<'_>, report: &Report<'_>) {
    let (Given::Good(timeout), Some(interval)) =
        (keys.get(&TIMEOUT), keys.get(&INTERVAL).or_if_absent(DEFAULT_INTERVAL))
    else {
        return;
    };
    if timeout.value > interval {
        // The mistake is reported at the one of the two that this service sets.
        let place = match (keys.own(&TIMEOUT), keys.own(&INTERVAL)) {
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

/// Programs run only if the file allows it.
fn may_run(programs: Programs, place: Span, report: &Report<'_>) {
    if !programs.are_allowed {
        report.add(
            place,
            "checks of type `exec` run programs with the rights of the daemon: if that is wanted, set allow = true in [exec]",
        );
    }
}

/// A check over a protocol other than the service's cannot use the port of the backend.
fn has_a_port(service: &file::Service<'_>, probe: &Probe, report: &Report<'_>) {
    let (serves, place) = match &service.protocol {
        Given::Good(At { value, span }) => (*value, *span),
        Given::Absent => (Protocol::Tcp, service.header),
        Given::Wrong => return,
    };
    let Some(checked) = probe.over() else { return };
    if serves != checked && matches!(service.health.get(&PORT), Given::Absent) {
        let message = format!(
            "a {serves} service is checked over {checked}: \
             set `port` in [service.health] to a {checked} port, or type = \"none\"",
            serves = serves.name().to_ascii_uppercase(),
            checked = checked.name().to_ascii_uppercase(),
        );
        report.add(place, message);
    }
}

fn results(value: &DeValue<'_>) -> Result<u32, String> {
    value::integer(value, 1..=MOST_RESULTS)
}
