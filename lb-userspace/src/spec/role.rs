//! Keys of a `[[service]]` about the role of its backends, which are servers of a database cluster.

use std::time::Duration;

use lb_common::net::Protocol;

use super::{HealthCheck, Percent};
use crate::{
    document::{
        mistakes::{At, Report, Span},
        table::{Given, Table},
        value,
    },
    named::{Named as _, named},
    probe::{Kind, Role},
    text::either,
};

const MAX_LAG: Duration = Duration::from_hours(24);

/// Which servers get flows, by their role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolePolicy {
    /// `None`: any.
    pub wanted: Option<Role>,
    /// What becomes of the flows of a server that loses this role.
    pub on_change: OnRoleChange,
    /// replica: one that is further behind gets no new flows. `None`: no limit.
    pub max_lag: Option<Duration>,
    /// The same in bytes of history.
    pub max_lag_bytes: Option<u64>,
}

/// What becomes of the flows of a server that loses the role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRoleChange {
    /// They end.
    #[default]
    Reset,
    /// They stay.
    Keep,
}

named!(OnRoleChange { Reset = "reset", Keep = "keep", });

/// The value of `role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Primary,
    Replica,
    Any,
}

named!(Wanted { Primary = "primary", Replica = "replica", Any = "any", });

/// The keys as written.
pub struct Written {
    role: Given<Wanted>,
    on_change: Given<OnRoleChange>,
    max_lag: Given<Duration>,
    max_lag_bytes: Given<u32>,
}

impl Written {
    /// Does a role decide which backends get flows?
    pub fn decides(&self) -> bool {
        self.role.good().is_some_and(|role| role.value != Wanted::Any)
    }

    pub fn read(table: &mut Table<'_>) -> Self {
        let lag = Duration::from_millis(1)..=MAX_LAG;
        Self {
            role: table.optional("role", |value| value::choice(value, "role", &[])),
            on_change: table.optional("on_role_change", |it| value::choice(it, "on_role_change", &[])),
            max_lag: table.optional("max_lag", |value| value::duration(value, lag)),
            max_lag_bytes: table.optional("max_lag_bytes", |value| value::integer(value, 1..=u32::MAX)),
        }
    }

    /// A role needs a check that reads it, and the other keys need a role.
    pub fn validate(
        &self,
        health: Option<&HealthCheck>,
        (protocol, panic_threshold): (Protocol, Percent),
        report: &Report<'_>,
    ) -> RolePolicy {
        let role = self.role.good();
        let wanted = role.and_then(|it| match it.value {
            Wanted::Primary => Some(Role::Primary),
            Wanted::Replica => Some(Role::Replica),
            Wanted::Any => None,
        });
        if let (Some(At { span, .. }), Some(wanted)) = (role, wanted) {
            refuse_without_roles(*span, wanted, health, (protocol, panic_threshold), report);
        }
        if !matches!(self.role, Given::Wrong) {
            self.refuse_without_use(wanted, health, report);
        }
        RolePolicy {
            wanted,
            on_change: self.on_change.good().map_or(OnRoleChange::default(), |it| it.value),
            max_lag: self.max_lag.good().map(|it| it.value),
            max_lag_bytes: self.max_lag_bytes.good().map(|it| it.value.into()),
        }
    }

    fn refuse_without_use(&self, wanted: Option<Role>, health: Option<&HealthCheck>, report: &Report<'_>) {
        if let Some(on_change) = self.on_change.good().filter(|_| wanted.is_none()) {
            report.add(on_change.span, "`on_role_change` needs role = \"primary\" or \"replica\"");
        }
        if let Some(keep) = self.on_change.good().filter(|it| it.value == OnRoleChange::Keep)
            && wanted == Some(Role::Primary)
        {
            report.add(
                keep.span,
                "`on_role_change = \"keep\"` is for role = \"replica\": a server that is no longer the primary must get no \
                 more writes",
            );
        }
        let kind = health
            .map(|check| check.probe.kind())
            .filter(|kind| kind.finds_roles() && !kind.counts_history());
        if let (Some(bytes), Some(kind)) = (self.max_lag_bytes.good(), kind) {
            let message = format!(
                "`max_lag_bytes` is not possible with checks of type `{}`: use `max_lag`",
                kind.name()
            );
            report.add(bytes.span, message);
        }
        let lags = [
            ("max_lag", self.max_lag.good().map(|it| it.span)),
            ("max_lag_bytes", self.max_lag_bytes.good().map(|it| it.span)),
        ];
        for (key, span) in lags {
            if let Some(span) = span.filter(|_| wanted != Some(Role::Replica)) {
                report.add(span, format!("`{key}` needs role = \"replica\""));
            }
        }
    }
}

fn refuse_without_roles(
    place: Span,
    wanted: Role,
    health: Option<&HealthCheck>,
    (protocol, panic_threshold): (Protocol, Percent),
    report: &Report<'_>,
) {
    let role = wanted.name();
    if !health.is_some_and(|check| check.probe.kind().finds_roles()) {
        let types: Vec<_> = Kind::ALL.iter().filter(|it| it.finds_roles()).map(|it| it.name()).collect();
        let types = either(&types);
        report.add(
            place,
            format!("role `{role}` needs a check that finds it: set `type` in [service.health] to {types}"),
        );
    }
    if protocol != Protocol::Tcp {
        report.add(place, format!("role `{role}` is only possible with protocol `tcp`"));
    }
    if panic_threshold != Percent(0) {
        report.add(
            place,
            format!(
                "role `{role}` is not possible with panic_threshold: health says which servers have the role"
            ),
        );
    }
}
