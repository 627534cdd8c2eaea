//! Why a command failed: message, details and hint.

use std::{fmt, io, path::Path};

use crate::{api::client, exit::Exit, spec::Mistakes, text::printable};

/// The failure of a command. Its `Display` goes to stderr.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    message: String,
    /// Errors of a configuration, or problems of the host: printed before the message.
    details: Vec<String>,
    /// The same mistakes, in JSON.
    mistakes: Option<Box<Mistakes>>,
    hint: Option<String>,
    is_closed_pipe: bool,
}

impl Failure {
    /// `message` is what failed and why. It is printed after `error: `.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            details: Vec::new(),
            mistakes: None,
            hint: None,
            is_closed_pipe: false,
        }
    }

    /// An invalid configuration.
    pub fn invalid(file: &Path, mistakes: Mistakes) -> Self {
        let failure = if mistakes.is_of_file() {
            Self::new(Exit::InvalidConfiguration, mistakes.to_string())
        } else {
            let message = format!("{} is not a valid configuration", file.display());
            Self::new(Exit::InvalidConfiguration, message).details(mistakes.each())
        };
        Self { mistakes: Some(Box::new(mistakes)), ..failure }
    }

    /// Sets what the operator can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets lines that are printed before the message: mistakes of a file, or what a host lacks.
    pub fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// What failed and why.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the operator can do about it.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The mistakes, if the configuration is invalid.
    pub fn mistakes(&self) -> Option<&Mistakes> {
        self.mistakes.as_deref()
    }

    /// The reader of stdout has closed it (`xlb flow list | head`): not a failure.
    pub const fn is_closed_pipe(&self) -> bool {
        self.is_closed_pipe
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A mistake may include the line that it is in. Such lines are kept as they are.
        for line in self.details.iter().flat_map(|detail| detail.lines()) {
            writeln!(f, "{}", printable(line))?;
        }
        writeln!(f, "error: {}", printable(&self.message))?;
        match &self.hint {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let is_closed_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Self { is_closed_pipe, ..Self::new(Exit::Failed, format!("cannot write the output: {error}")) }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let failure = Self::new(error.exit(), error.to_string());
        match error {
            client::Error::Unreachable { reason, .. } => failure.hint(hint_for(reason.kind())),
            client::Error::Refused(problem) => failure.details(problem.errors),
            client::Error::TimedOut { .. } => failure.hint("see the daemon's log"),
            client::Error::Unreadable { .. } => failure
                .hint("are xlb and the daemon the same version? compare `xlb --version` and `xlb status`"),
        }
    }
}

fn hint_for(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::PermissionDenied {
        "only root and group xlb can use the socket; try sudo"
    } else if kind == io::ErrorKind::InvalidInput {
        "choose another with --socket or XLB_SOCKET"
    } else {
        "is it running? `systemctl status xlb`; choose another socket with --socket or XLB_SOCKET"
    }
}
