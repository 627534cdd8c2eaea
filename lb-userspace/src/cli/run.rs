//! `xlb run`: the daemon is elsewhere; here is what it is told, and its log.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use log::LevelFilter;

use super::args::Verbosity;

/// What the command line and the environment say of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The file, read at the start and at each reload.
    pub config: PathBuf,
    /// Stopping removes the data plane; else traffic flows on.
    pub detach_on_exit: bool,
    /// In place of what the file says.
    pub socket: Option<PathBuf>,
    /// How long the interfaces of the file may take to appear.
    pub wait_interfaces: Option<Duration>,
}

/// Logs to stderr. `XLB_LOG`, a filter of env_logger, precedes `-q` and `-v`.
pub(super) fn init_log(verbosity: Verbosity, env: &dyn Fn(&str) -> Option<OsString>) {
    let level = match verbosity {
        Verbosity::Quiet => LevelFilter::Warn,
        Verbosity::Usual => LevelFilter::Info,
        Verbosity::Verbose => LevelFilter::Debug,
    };
    let mut builder = env_logger::Builder::new();
    match env("XLB_LOG").and_then(|filter| filter.into_string().ok()) {
        Some(filter) => builder.parse_filters(&filter),
        // `-v` is about xlb, not about every netlink message of a library.
        None => {
            builder.filter_level(level.min(LevelFilter::Info)).filter_module(env!("CARGO_CRATE_NAME"), level)
        }
    };
    // The journal has its own clock.
    if env("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    }
    // A second daemon in one process (tests) keeps the first one's log.
    let _already_set = builder.try_init();
}
