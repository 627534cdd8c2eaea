//! `xlb run`: the daemon's options from the command line and the environment.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use log::LevelFilter;

use super::args::Verbosity;

/// How the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The file, read at the start and at each reload.
    pub config: PathBuf,
    /// Stopping removes the data plane. Otherwise traffic continues.
    pub detach_on_exit: bool,
    /// Overrides the file.
    pub socket: Option<PathBuf>,
    /// How long to wait for the interfaces in the file to appear.
    pub wait_interfaces: Option<Duration>,
    /// Log settings.
    pub log: Log,
}

/// What is logged to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// From `-q` and `-v`.
    pub level: LevelFilter,
    /// `XLB_LOG`, a filter of env_logger, which overrides the level.
    pub filter: Option<String>,
    /// Off under systemd: the journal has timestamps of its own.
    pub timestamps: bool,
}

impl Log {
    pub(super) fn new(verbosity: Verbosity, env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let level = match verbosity {
            Verbosity::Quiet => LevelFilter::Warn,
            Verbosity::Usual => LevelFilter::Info,
            Verbosity::Verbose => LevelFilter::Debug,
        };
        let filter = env("XLB_LOG").and_then(|filter| filter.into_string().ok());
        Self { level, filter, timestamps: env("JOURNAL_STREAM").is_none() }
    }

    /// Starts logging.
    pub(crate) fn init(&self) {
        let mut builder = env_logger::Builder::new();
        match &self.filter {
            Some(filter) => builder.parse_filters(filter),
            // `-v` applies to xlb, not to every netlink message of a library.
            None => builder
                .filter_level(self.level.min(LevelFilter::Info))
                .filter_module(env!("CARGO_CRATE_NAME"), self.level),
        };
        if !self.timestamps {
            builder.format_timestamp(None);
        }
        // A second daemon in one process (in tests) keeps the first one's logger.
        let _already_set = builder.try_init();
    }
}
