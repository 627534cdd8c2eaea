//! The backends of one service.

use super::unique;
use crate::{
    document::mistakes::Report,
    spec::{
        Backend, DEFAULT_WEIGHT, Service, file,
        rules::{self, Family, OwnAddresses},
    },
};

/// Names are unique within a service.
pub fn named_once(written: Option<Vec<file::Backend>>, report: &Report<'_>) -> Vec<file::Backend> {
    let written = written.unwrap_or_default();
    unique(written.iter().filter_map(|it| it.name.as_ref()), "backend", report);
    written
}

/// Validates a backend against the former ones of the service, as if the CLI added it.
///
/// If part of `listen` is invalid, a backend of a family without listen address is not reported.
pub fn validate(
    written: file::Backend,
    service: &Service,
    may_listen_elsewhere: bool,
    holder: Option<&str>,
    own: &OwnAddresses,
    report: &Report<'_>,
) -> Option<Backend> {
    let address = written.address?;
    report.take(address.span, own.refuse(address.value))?;
    if !may_listen_elsewhere || service.listens_on(Family::of(address.value.ip())) {
        report.take(address.span, rules::fit(service, address.value, holder))?;
    }
    Some(Backend {
        name: written.name?.value,
        address: address.value,
        weight: written.weight.or(DEFAULT_WEIGHT),
        backup: written.backup.or(false),
        max_flows: written.max_flows.or(0),
    })
}
