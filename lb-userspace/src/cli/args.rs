//! What may be typed.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue},
};

use crate::{
    duration,
    exit::Exit,
    spec::{self, BackendName, rules},
};

const LEAST_WAIT: Duration = Duration::from_millis(1);
/// A year.
const MOST_WAIT: Duration = Duration::from_hours(365 * 24);

/// An XDP layer-4 load balancer.
#[derive(Debug, Parser)]
#[command(
    name = "xlb",
    version,
    term_width = 100,
    after_help = exit_codes()
)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, ClapArgs)]
pub struct Global {
    /// The daemon's socket [env: XLB_SOCKET] [default: what the file says, /run/xlb/xlb.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How data is shown
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// Colours; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, default_value_t)]
    pub color: Color,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true, action = ArgAction::SetTrue)]
    pub verbose: bool,
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    Quiet,
    Usual,
    Verbose,
}

impl Global {
    pub const fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, false) => Verbosity::Usual,
            (false, true) => Verbosity::Verbose,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    /// More columns
    Wide,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Be the daemon, in the foreground
    Run {
        /// The configuration [env: XLB_CONFIG] [default: /etc/xlb/xlb.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Remove the data plane at the end: traffic stops
        #[arg(long)]
        detach_on_exit: bool,
        /// Wait up to T for the interfaces of the configuration to appear and to be set up, as at boot
        #[arg(long, value_name = "T", value_parser = wait)]
        wait_interfaces: Option<Duration>,
    },
    /// Validate a configuration, offline
    Check {
        /// The configuration [env: XLB_CONFIG] [default: /etc/xlb/xlb.toml]
        file: Option<PathBuf>,
    },
    #[command(flatten)]
    Ask(Question),
    /// Print a completion script
    Completions { shell: clap_complete::Shell },
}

/// What the daemon is asked for.
#[derive(Debug, Subcommand)]
pub enum Question {
    /// How the daemon is, on one screen
    Status {
        /// One line, and exit 0, 1, 2 or 3 as monitoring plugins do
        #[arg(long)]
        check: bool,
    },
    /// What clients dial
    #[command(visible_alias = "svc")]
    Service {
        #[command(subcommand)]
        verb: ServiceVerb,
    },
    /// The servers behind services
    #[command(visible_alias = "be")]
    Backend {
        #[command(subcommand)]
        verb: BackendVerb,
    },
    /// What health checks find
    Health {
        #[command(subcommand)]
        verb: HealthVerb,
    },
    /// The connections in the flow table
    Flow {
        #[command(subcommand)]
        verb: FlowVerb,
    },
    /// Packets, bytes and flows
    Stats {
        /// Only this service or backend
        #[arg(value_name = "SERVICE[/BACKEND]")]
        of: Option<String>,
        /// Again and again, as rates, every T (1s)
        #[arg(long, value_name = "T", num_args = 0..=1, require_equals = true, default_missing_value = "1s",
              value_parser = wait)]
        watch: Option<Duration>,
    },
    /// What Prometheus scrapes
    Metrics,
    /// Read the configuration again
    Reload,
    /// Remove the data plane and stop the daemon: traffic stops
    Detach,
}

#[derive(Debug, Subcommand)]
pub enum ServiceVerb {
    /// All services
    #[command(visible_alias = "ls")]
    List,
    /// One service and its backends
    Show {
        #[arg(value_name = "SERVICE")]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum BackendVerb {
    /// All backends, or those of one service
    #[command(visible_alias = "ls")]
    List { service: Option<String> },
    /// One backend
    Show {
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
    /// Add a backend to a service
    Add {
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
        /// Address and port that it listens on; an IPv6 address is written in brackets
        #[arg(value_parser = spec::parse_endpoint)]
        address: SocketAddr,
        /// 0: no new flows
        #[arg(long, default_value_t = spec::DEFAULT_WEIGHT, value_name = "N", value_parser = weight,
              allow_negative_numbers = true)]
        weight: u32,
        /// Used only when no other is up
        #[arg(long)]
        backup: bool,
    },
    /// Remove a backend; its flows end
    #[command(visible_alias = "rm")]
    Remove {
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
    /// Serve: the end of drain and maint
    Ready {
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
    /// No new flows; those it has stay
    Drain {
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
        /// Wait until it has none left, at most T (60s)
        #[arg(long, value_name = "T", num_args = 0..=1, require_equals = true, default_missing_value = "60s",
              value_parser = wait)]
        wait: Option<Duration>,
    },
    /// No flows at all; those it has end
    Maint {
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
    /// Change the weight; 0: no new flows
    Weight {
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
        #[arg(value_name = "N", value_parser = weight, allow_negative_numbers = true)]
        weight: u32,
    },
    /// Make it a backup, used only when no other is up; or a regular backend
    Backup {
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
        #[arg(value_name = "true|false", action = ArgAction::Set, hide_possible_values = true)]
        backup: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum HealthVerb {
    /// What is believed of each backend, and why
    #[command(visible_alias = "ls")]
    List {
        /// Only backends that are down, or whose last check failed
        #[arg(long)]
        failed: bool,
    },
    /// Check a backend once; what is believed of it stays (exit 1 if the check fails)
    Probe {
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
}

#[derive(Debug, Subcommand)]
pub enum FlowVerb {
    /// The flows themselves
    #[command(visible_alias = "ls")]
    List(FlowFilter),
    /// How many there are
    Count,
}

#[derive(Debug, ClapArgs)]
pub struct FlowFilter {
    #[arg(long)]
    pub service: Option<String>,
    #[arg(long, value_name = "SERVICE/BACKEND")]
    pub backend: Option<BackendName>,
    /// An address or a network
    #[arg(long, value_name = "CIDR")]
    pub client: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = crate::api::routes::FLOWS_LISTED)]
    pub limit: usize,
}

fn wait(text: &str) -> Result<Duration, String> {
    duration::parse(text, LEAST_WAIT..=MOST_WAIT)
}

fn weight(text: &str) -> Result<u32, String> {
    let weight = text.parse().ok().filter(|weight| rules::weight(*weight).is_ok());
    weight.ok_or_else(|| format!("0 to {} are possible", rules::MAX_WEIGHT))
}

/// `--wait 5s`: a time that may be left out is joined to its option, because a name may follow (`--wait web/web-1`).
pub fn with_tip(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && wait(word).is_ok()
        && args.iter().any(|arg| arg == "--wait")
    {
        let tip = format!("a time is joined to its option: --wait={word}").into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

fn exit_codes() -> String {
    let codes = Exit::ALL.map(|exit| format!("{} {}", exit.code(), exit.about()));
    format!("Exit codes: {}", codes.join(", "))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn each_command_and_each_exit_code_is_in_the_document() {
        let document = include_str!("../../../docs/cli.md");

        for command in leaves("xlb", &Args::command()) {
            assert!(document.contains(&format!("`{command}")), "docs/cli.md lacks `{command}`");
        }
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.code(), exit.about());
            assert!(document.contains(&row), "docs/cli.md lacks {row}");
        }
    }

    fn leaves(path: &str, command: &clap::Command) -> Vec<String> {
        let below = command.get_subcommands().map(|sub| leaves(&format!("{path} {}", sub.get_name()), sub));
        let below: Vec<String> = below.flatten().collect();
        if below.is_empty() { vec![path.to_owned()] } else { below }
    }
}
