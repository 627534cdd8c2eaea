//! The types of health checks: one file each, with its configuration keys and its probe.
//!
//! To add a type, add its file and a line in the table below. Its keys in the configuration and its name in `xlb
//! health list` follow from them.
//!
//! Backends are not trusted: everything that they can make long or large has a limit, and one timeout covers everything
//! from the first SYN to the byte that decides the result.

mod connect;
mod farewell;
mod fault;
#[cfg(test)]
pub(crate) mod fixture;
mod inspected;
mod kept;
mod limited;
mod login;
mod role;
pub(crate) mod tls_client;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use lb_common::net::Protocol;
use tokio::time::Instant;

pub use self::{
    agent::{AgentReport, WeightPercent},
    fault::Fault,
    role::{Mark, Role, RoleReport},
};
use crate::{
    document::{AnyKey, Keys},
    named::{Named, json_by_name, named},
    spec::BackendName,
};

/// A type of health check.
pub(crate) trait CheckType: Clone {
    /// Its name in the API, and after `type =` in the configuration.
    const NAME: &'static str;
    /// Its own keys, besides those of every health check.
    const KEYS: &'static [&'static dyn AnyKey];
    /// Does it report the role of a database server?
    const FINDS_ROLES: bool = false;
    /// Do its marks have positions, whose differences are bytes?
    const COUNTS_HISTORY: bool = false;
    /// Do the names of service and backend matter to a probe? If not, backends of several services on one server share it.
    const KNOWS_NAMES: bool = false;
    /// Does it limit itself how many of its probes run at once? If so, they do not count among all probes.
    const HAS_OWN_LIMIT: bool = false;
    /// What it keeps between two probes of a backend.
    type Session: Default + Send;

    /// Reads its keys. Each value has been checked by itself; what is wrong with several together is reported here.
    fn read(keys: &Keys<'_>) -> Self;

    /// What it has before the first probe.
    fn session(&self, _backend: &BackendName) -> Self::Session {
        Self::Session::default()
    }

    /// The protocol that it probes over. `None`: any.
    fn over(&self) -> Option<Protocol> {
        Some(Protocol::Tcp)
    }

    /// Reads the files that its keys name, as each probe does, and returns what is wrong with them.
    fn check_files(&self) -> Result<(), String> {
        Ok(())
    }

    /// Probes once.
    async fn run(&self, session: &mut Self::Session, place: Place, limit: Duration) -> Verdict;
}

/// Where a probe goes, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// With the port of the check.
    pub address: SocketAddr,
    /// The local address. `None`: the kernel chooses.
    pub source: Option<IpAddr>,
}

macro_rules! types {
    ($($(#[$about:meta])* $Type:ident in $file:ident,)*) => {
        $(pub(crate) mod $file;)*
        $(pub use $file::$Type;)*

        /// The configured health check of a backend.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Probe {
            $($(#[$about])* $Type($Type),)*
        }

        /// A type of health check, without its keys.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$about])* $Type,)*
        }

        impl Named for Kind {
            const ALL: &'static [Self] = &[$(Self::$Type,)*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$Type => $Type::NAME,)*
                }
            }
        }

        /// `None`: no checks.
        impl Named for Option<Kind> {
            const ALL: &'static [Self] = &[$(Some(Kind::$Type),)* None];

            fn name(self) -> &'static str {
                self.map_or("none", Kind::name)
            }
        }

        impl Kind {
            pub(crate) const fn keys(self) -> &'static [&'static dyn AnyKey] {
                match self {
                    $(Self::$Type => $Type::KEYS,)*
                }
            }

            pub(crate) const fn finds_roles(self) -> bool {
                match self {
                    $(Self::$Type => $Type::FINDS_ROLES,)*
                }
            }

            pub(crate) const fn counts_history(self) -> bool {
                match self {
                    $(Self::$Type => $Type::COUNTS_HISTORY,)*
                }
            }

            pub(crate) fn read(self, keys: &Keys<'_>) -> Probe {
                match self {
                    $(Self::$Type => Probe::$Type($Type::read(keys)),)*
                }
            }
        }

        impl Probe {
            /// Its type.
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$Type(_) => Kind::$Type,)*
                }
            }

            /// Do the names of service and backend matter to a probe?
            pub(crate) const fn knows_names(&self) -> bool {
                match self {
                    $(Self::$Type(_) => $Type::KNOWS_NAMES,)*
                }
            }

            /// Does it limit itself how many of its probes run at once?
            pub(crate) const fn has_own_limit(&self) -> bool {
                match self {
                    $(Self::$Type(_) => $Type::HAS_OWN_LIMIT,)*
                }
            }

            /// The protocol that it probes over. `None`: any.
            pub(crate) fn over(&self) -> Option<Protocol> {
                match self {
                    $(Self::$Type(probe) => probe.over(),)*
                }
            }

            /// What is wrong with the files that its keys name.
            pub(crate) fn check_files(&self) -> Result<(), String> {
                match self {
                    $(Self::$Type(probe) => probe.check_files(),)*
                }
            }

            /// A prober of one backend.
            pub(crate) fn prober_of(&self, backend: &BackendName) -> Prober {
                match self {
                    $(Self::$Type(probe) => Prober::$Type(probe.clone(), probe.session(backend)),)*
                }
            }
        }

        /// Probes one backend again and again, and keeps what its type keeps between two probes.
        pub(crate) enum Prober {
            $($Type($Type, <$Type as CheckType>::Session),)*
        }

        impl Prober {
            /// Probes once.
            pub(crate) async fn run(&mut self, place: Place, limit: Duration) -> Verdict {
                match self {
                    $(Self::$Type(probe, session) => probe.run(session, place, limit).await,)*
                }
            }
        }
    };
}

types! {
    /// Connects.
    Tcp in tcp,
    /// Requests a path.
    Http in http,
    /// The same over TLS.
    Https in https,
    /// A TLS handshake.
    Tls in tls,
    /// Sends a datagram.
    Udp in udp,
    /// Asks an agent.
    Agent in agent,
    /// A login, and the role of a MySQL or MariaDB server.
    Mysql in mysql,
    /// The role of a PostgreSQL server.
    Postgres in postgres,
    /// Asks a name server.
    Dns in dns,
    /// Asks a gRPC server for its health.
    Grpc in grpc,
    /// The role of a Redis or Valkey server.
    Redis in redis,
    /// Runs a program.
    Exec in exec,
}

/// The outcome of a probe: the label `result` of `xlb_health_checks_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeOutcome {
    /// The backend answered as it should.
    Success,
    /// Refused, reset, or a wrong answer.
    Failure,
    /// No answer within the check's timeout.
    Timeout,
    /// It says nothing about the backend's health, which stays.
    Undecided,
}

named!(ProbeOutcome {
    Success = "success",
    Failure = "failure",
    Timeout = "timeout",
    Undecided = "undecided",
});
json_by_name!(ProbeOutcome);

/// What a probe has found. A probe may go on after that, to end its connection in a way that servers do not report.
#[derive(Debug)]
pub struct Verdict {
    /// The answer of a healthy backend; otherwise why the probe failed.
    pub answer: Result<Answer, Fault>,
    /// When it was certain.
    pub at: Instant,
}

impl Verdict {
    /// It is certain now.
    fn now(answer: Result<Answer, Fault>) -> Self {
        Self { answer, at: Instant::now() }
    }
}

/// What a healthy backend has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// For the operator.
    pub text: String,
    /// For programs.
    pub facts: Facts,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, facts: Facts::default() }
    }
}

/// What a backend has said of itself, besides whether it is healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When the certificate of its chain that ends first ends.
    pub certificate_ends: Option<SystemTime>,
    /// A database: its role.
    pub role: Option<RoleReport>,
    /// An agent: what it has said.
    pub agent: Option<AgentReport>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_type_and_every_key() {
        let manual = include_str!("../../docs/configuration.md");

        for kind in Kind::ALL {
            let name = kind.name();
            let heading = format!("\n#### `{name}`\n");
            assert!(manual.contains(&heading), "docs/configuration.md lacks the section of type `{name}`");
            for key in kind.keys() {
                let row = format!("| `{}` | ", key.name());
                assert!(manual.contains(&row), "docs/configuration.md lacks {row}");
            }
        }
    }
}
