//! The types of health checks: one file each, with its configuration keys and its probe.
//!
//! To add a type, add its file and a line in the table below. Its keys in the configuration and its name in `xlb
//! health list` follow from them.
//!
//! Backends are not trusted: everything that they can make long or large has a limit, and one timeout covers everything
//! from the first SYN to the byte that decides the result.

mod connect;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::net::Protocol;
use nix::errno::Errno;
use tokio::time::Instant;

use crate::{
    document::{AnyKey, Layers},
    named::{Named, json_by_name, named},
};

/// A type of health check.
trait CheckType: Sized {
    /// Its name in the API, and after `type =` in the configuration.
    const NAME: &'static str;
    /// Its own keys, besides those of every health check.
    const KEYS: &'static [&'static dyn AnyKey];
    /// The protocol that it probes over.
    const OVER: Protocol;

    /// Reads its keys. Each value has been checked, and mistakes reported.
    fn read(keys: &Layers<'_>) -> Self;

    /// Probes once, from `source` if given.
    async fn run(&self, address: SocketAddr, source: Option<IpAddr>, timeout: Duration) -> Verdict;
}

macro_rules! types {
    ($($(#[$about:meta])* $Type:ident in $file:ident,)*) => {
        $(mod $file;)*
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

            pub(crate) const fn over(self) -> Protocol {
                match self {
                    $(Self::$Type => $Type::OVER,)*
                }
            }

            pub(crate) fn read(self, keys: &Layers<'_>) -> Probe {
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

            /// Probes once, from `source` if given.
            pub(crate) async fn run(
                &self,
                address: SocketAddr,
                source: Option<IpAddr>,
                timeout: Duration,
            ) -> Verdict {
                match self {
                    $(Self::$Type(probe) => probe.run(address, source, timeout).await,)*
                }
            }
        }
    };
}

types! {
    /// Connects.
    Tcp in tcp,
    /// Requests a path: up on 2xx and 3xx.
    Http in http,
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
}

named!(ProbeOutcome { Success = "success", Failure = "failure", Timeout = "timeout", });
json_by_name!(ProbeOutcome);

/// What a probe has found. A probe may go on after that, to end its connection in a way that servers do not report.
#[derive(Debug)]
pub struct Verdict {
    /// The answer of a healthy backend, for the operator; otherwise why the probe failed.
    pub answer: Result<String, Fault>,
    /// When it was certain.
    pub at: Instant,
}

impl Verdict {
    /// It is certain now.
    fn now(answer: Result<String, Fault>) -> Self {
        Self { answer, at: Instant::now() }
    }
}

/// Why a probe found no healthy backend.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It answered, but not as it should.
    Failed(String),
    /// It did not answer in time.
    Silent,
    /// This host could not send the probe (no sockets or memory left), so the result is about the host, not the
    /// backend.
    Local(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw);
        if let Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) = errno {
            return Self::Local(plain(&error));
        }
        // The kernel's timeout came before ours.
        if error.kind() == io::ErrorKind::TimedOut {
            return Self::Silent;
        }
        Self::Failed(plain(&error))
    }
}

/// "connection refused" instead of "Connection refused (os error 111)".
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_type_and_every_key() {
        let manual = include_str!("../../docs/configuration.md");

        for kind in Kind::ALL {
            let name = kind.name();
            assert!(manual.contains(&format!("`{name}`: ")), "docs/configuration.md lacks type `{name}`");
            for key in kind.keys() {
                let row = format!("| `{}` | ", key.name());
                assert!(manual.contains(&row), "docs/configuration.md lacks {row}");
            }
        }
    }

    #[test]
    fn a_host_out_of_sockets_does_not_blame_the_backend() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS] {
            let fault = Fault::from(io::Error::from(errno));

            assert!(matches!(fault, Fault::Local(_)), "{errno}");
        }
        assert_eq!(Fault::from(io::Error::from(Errno::ETIMEDOUT)), Fault::Silent);
        assert_eq!(
            Fault::from(io::Error::from(Errno::EHOSTUNREACH)),
            Fault::Failed("no route to host".to_owned())
        );
    }
}
