//! `xlb run`: the daemon is elsewhere; here is what it is told, and its log.

use std::{ffi::OsString, path::PathBuf};

use log::LevelFilter;

use super::args::Verbosity;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub config: PathBuf,
    pub detach_on_exit: bool,
    /// In place of what the file says.
    pub socket: Option<PathBuf>,
}

/// Logs to stderr. `XLB_LOG` is a filter of env_logger and says more than `-q` and `-v` do.
pub fn init_log(verbosity: Verbosity, env: &dyn Fn(&str) -> Option<OsString>) {
    let level = match verbosity {
        Verbosity::Quiet => LevelFilter::Warn,
        Verbosity::Usual => LevelFilter::Info,
        Verbosity::Verbose => LevelFilter::Debug,
    };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level);
    if let Some(filter) = env("XLB_LOG").and_then(|filter| filter.into_string().ok()) {
        builder.parse_filters(&filter);
    }
    // The journal has its own clock.
    if env("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    }
    // A second daemon in one process (tests) keeps the first one's log.
    let _already_set = builder.try_init();
}
