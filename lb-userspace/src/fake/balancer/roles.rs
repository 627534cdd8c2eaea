//! A database cluster with a service for writes and one for reads.

use super::Balancer;
use crate::{
    probe::Role,
    problem::{Problem, ProblemKind},
    spec::BackendName,
    view::{Health, PrimaryState, ServerRole, ServiceRole},
};

impl Balancer {
    /// A fence ends as soon as it is waited for: the second list of roles has a newer primary.
    pub(super) fn fence(&mut self, service: &str, is_fenced: bool) -> Result<ServiceRole, Problem> {
        let role = self.write_service(service)?;
        role.fenced = is_fenced;
        (role.primary, role.state) = if is_fenced {
            (None, PrimaryState::Fenced)
        } else {
            (Some("pg-1".to_owned()), PrimaryState::Elected)
        };
        Ok(role.clone())
    }

    pub(super) fn force(&mut self, name: &BackendName) -> Result<ServiceRole, Problem> {
        let role = self.write_service(&name.service)?;
        let server = role.servers.iter().find(|it| it.name == name.backend);
        match server.map(|it| it.role) {
            None => Err(Problem::new(ProblemKind::NotFound, format!("there is no backend `{name}`"))),
            Some(Some(Role::Primary)) => {
                (role.primary, role.state) = (Some(name.backend.clone()), PrimaryState::Elected);
                Ok(role.clone())
            }
            Some(Some(Role::Replica) | None) => {
                let detail = format!("{name} cannot be the primary: it says replica: promote it first");
                Err(Problem::new(ProblemKind::Conflict, detail))
            }
        }
    }

    fn write_service(&mut self, name: &str) -> Result<&mut ServiceRole, Problem> {
        let absent = || Problem::new(ProblemKind::NotFound, format!("there is no service `{name}`"));
        self.roles.iter_mut().find(|it| it.service == name).ok_or_else(absent)
    }
}

pub fn services() -> Vec<ServiceRole> {
    let service = |service: &str, role, servers| ServiceRole {
        service: service.to_owned(),
        role,
        primary: Some("pg-1".to_owned()),
        state: PrimaryState::Elected,
        since_seconds: 3_725,
        fenced: false,
        forced: None,
        cluster: Some("7412345678901234567".to_owned()),
        term: Some(3),
        servers,
    };
    let writes = vec![
        server(1, Some(Role::Primary), None),
        server(2, Some(Role::Replica), Some("replica")),
        ServerRole {
            mark: Some("timeline 2, 0/2FFFFF8".to_owned()),
            ..server(3, Some(Role::Primary), Some("outdated"))
        },
    ];
    let reads = vec![
        server(1, Some(Role::Primary), Some("primary")),
        server(2, Some(Role::Replica), None),
        ServerRole {
            mark: None,
            lag_ms: None,
            lag_bytes: None,
            health: Health::Down,
            ..server(3, None, Some("down"))
        },
    ];
    vec![service("db", Role::Primary, writes), service("db-read", Role::Replica, reads)]
}

fn server(number: u8, role: Option<Role>, reason: Option<&str>) -> ServerRole {
    ServerRole {
        name: format!("pg-{number}"),
        address: ([10, 0, 0, 30 + number], 5432).into(),
        health: Health::Up,
        role,
        serves: reason.is_none(),
        is_backup: false,
        reason: reason.map(str::to_owned),
        mark: Some("timeline 3, 0/3000148".to_owned()),
        lag_ms: Some(if role == Some(Role::Replica) { 120 } else { 0 }),
        lag_bytes: Some(if role == Some(Role::Replica) { 4096 } else { 0 }),
    }
}
