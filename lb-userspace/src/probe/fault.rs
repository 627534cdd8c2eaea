//! Why a probe found no healthy backend.

use std::io;

use nix::errno::Errno;

use super::Answer;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It answered, but not as it should.
    Failed(String),
    /// It says itself that it is down.
    Reported(Box<Answer>),
    /// It did not answer in time.
    Silent,
    /// Nothing follows for the backend's health: this host could not send the probe, or the server would not say.
    Undecided(String),
}

impl Fault {
    /// This host could not send the probe.
    pub fn local(why: impl std::fmt::Display) -> Self {
        Self::Undecided(format!("not probed, local error: {why}"))
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw);
        if let Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EADDRNOTAVAIL) =
            errno
        {
            return Self::local(plain(&error));
        }
        // The kernel's timeout came before ours.
        if error.kind() == io::ErrorKind::TimedOut {
            return Self::Silent;
        }
        Self::Failed(plain(&error))
    }
}

/// "connection refused" instead of "Connection refused (os error 111)".
pub(super) fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_out_of_sockets_or_ports_does_not_blame_the_backend() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EADDRNOTAVAIL] {
            let fault = Fault::from(io::Error::from(errno));

            assert!(matches!(fault, Fault::Undecided(_)), "{errno}");
        }
        assert_eq!(Fault::from(io::Error::from(Errno::ETIMEDOUT)), Fault::Silent);
        assert_eq!(
            Fault::from(io::Error::from(Errno::EHOSTUNREACH)),
            Fault::Failed("no route to host".to_owned())
        );
    }
}
