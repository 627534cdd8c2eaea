//! The command line: commands, options and their help.

mod ha;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue},
};

pub use self::ha::{HaVerb, NodeVerb};
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
    /// The daemon's socket [env: XLB_SOCKET] [default: `socket` in the configuration file, else /run/xlb/xlb.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// When to color the output; `auto`: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t)]
    pub color: Color,
    /// Print only warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more
    #[arg(short, long, global = true, action = ArgAction::SetTrue)]
    pub verbose: bool,
}

/// How much to print.
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
    /// Run the daemon in the foreground
    Run {
        /// Configuration file [env: XLB_CONFIG] [default: /etc/xlb/xlb.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Remove the data plane on exit: traffic stops
        #[arg(long)]
        detach_on_exit: bool,
        /// Wait up to T for the configured interfaces to appear and be ready for XDP (for use at boot)
        #[arg(long, value_name = "T", value_parser = wait)]
        wait_interfaces: Option<Duration>,
    },
    /// Validate a configuration file for this host, without a daemon
    Check {
        /// Configuration file [env: XLB_CONFIG] [default: /etc/xlb/xlb.toml]
        file: Option<PathBuf>,
    },
    #[command(flatten)]
    Client(ClientCommand),
    /// Move the service addresses between this node and another one
    Ha {
        #[command(subcommand)]
        verb: HaVerb,
    },
    /// Print a completion script
    Completions {
        /// The shell to print the script for
        shell: clap_complete::Shell,
    },
}

/// Commands that the daemon answers.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Show the daemon's status on one screen
    Status {
        /// Print one line and exit like a monitoring plugin: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
        #[arg(long)]
        check: bool,
    },
    /// Show services
    #[command(visible_alias = "svc")]
    Service {
        #[command(subcommand)]
        verb: ServiceVerb,
    },
    /// Show and change backends, the servers behind services
    #[command(visible_alias = "be")]
    Backend {
        #[command(subcommand)]
        verb: BackendVerb,
    },
    /// Show and change which database server is the primary of a service
    Role {
        #[command(subcommand)]
        verb: RoleVerb,
    },
    /// Show the nodes that share flows
    Group {
        #[command(subcommand)]
        verb: GroupVerb,
    },
    /// Show and change what the nodes of a fleet have in common, in etcd
    Cluster {
        #[command(subcommand)]
        verb: ClusterVerb,
    },
    /// Show and run health checks
    Health {
        #[command(subcommand)]
        verb: HealthVerb,
    },
    /// Show the connections in the flow table
    Flow {
        #[command(subcommand)]
        verb: FlowVerb,
    },
    /// Show packets, bytes and flows
    Stats {
        /// Show only this service or backend
        #[arg(value_name = "SERVICE[/BACKEND]")]
        of: Option<String>,
        /// Show rates every T [default: 1s]
        #[arg(long, value_name = "T", num_args = 0..=1, require_equals = true, default_missing_value = "1s",
              value_parser = wait)]
        watch: Option<Duration>,
    },
    /// Print metrics for Prometheus
    Metrics,
    /// Reload the configuration
    Reload,
    /// Remove the data plane and stop the daemon: traffic stops
    Detach,
}

#[derive(Debug, Subcommand)]
pub enum ServiceVerb {
    /// List services
    #[command(visible_alias = "ls")]
    List,
    /// Show a service and its backends
    Show {
        /// The name of the service
        #[arg(value_name = "SERVICE")]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum BackendVerb {
    /// List all backends, or those of one service
    #[command(visible_alias = "ls")]
    List {
        /// List only the backends of this service
        service: Option<String>,
    },
    /// Show a backend
    Show {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
    /// Add a backend to a service
    Add {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
        /// The backend's address and port; an IPv6 address needs brackets
        #[arg(value_parser = spec::parse_endpoint)]
        address: SocketAddr,
        /// Weight from 0 to 1000; 0 = no new flows, all other values are equal under round robin
        #[arg(long, default_value_t = spec::DEFAULT_WEIGHT, value_name = "N", value_parser = weight,
              allow_negative_numbers = true)]
        weight: u32,
        /// Use it only if no regular backend can take new flows
        #[arg(long)]
        backup: bool,
        /// No new flows while it has N flows; 0 = no limit
        #[arg(long, default_value_t = 0, value_name = "N")]
        max_flows: u32,
    },
    /// Remove a backend and end its flows
    #[command(visible_alias = "rm")]
    Remove {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
    /// Return a backend to service from drain or maint
    Ready {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
    /// Send a backend no new flows; existing ones stay
    Drain {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
        /// Wait until no flow is left, for at most T [default: 60s]
        #[arg(long, value_name = "T", num_args = 0..=1, require_equals = true, default_missing_value = "60s",
              value_parser = wait)]
        wait: Option<Duration>,
    },
    /// Send a backend no flows; existing ones end at once
    Maint {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
    /// Change the weight; 0 = no new flows
    Weight {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
        /// Weight from 0 to 1000; 0 = no new flows, all other values are equal under round robin
        #[arg(value_name = "N", value_parser = weight, allow_negative_numbers = true)]
        weight: u32,
    },
    /// Make a backend a backup (used only if no regular backend can take new flows) or a regular backend
    Backup {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
        /// true = backup, false = regular backend
        #[arg(value_name = "true|false", action = ArgAction::Set, hide_possible_values = true)]
        backup: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum HealthVerb {
    /// List the health of each backend and its last check
    #[command(visible_alias = "ls")]
    List {
        /// List only backends that are down or whose last check failed
        #[arg(long)]
        failed: bool,
    },
    /// Run one check now, without changing the backend's health (exit 1 if the check fails)
    Probe {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
}

#[derive(Debug, Subcommand)]
pub enum RoleVerb {
    /// List what each database server says of itself, and which ones get flows
    #[command(visible_alias = "ls")]
    List,
    /// End all flows of the primary, and let none begin until there is a newer primary (run it before a promotion)
    Fence {
        /// A service with role = "primary"
        service: String,
        /// Wait until there is a newer primary, at most T
        #[arg(long, value_name = "T", num_args = 0..=1, require_equals = true, default_missing_value = "60s",
              value_parser = wait)]
        wait: Option<Duration>,
    },
    /// End the fence: a server that says primary gets flows again
    Unfence {
        /// A service with role = "primary"
        service: String,
    },
    /// Make a server that says primary the primary, whatever the others say; ends a fence
    Force {
        /// The backend, with the service it belongs to
        #[arg(value_name = "SERVICE/BACKEND")]
        name: BackendName,
    },
}

#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// Show this node and its peers: which flows go where, and how late
    Status,
}

#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Show which node runs which revision, and whether etcd can be reached
    Status,
    /// Store the services of a file for all nodes
    Push {
        /// A configuration file, or what `pull` printed [env: XLB_CONFIG] [default: /etc/xlb/xlb.toml]
        file: Option<PathBuf>,
        /// The revision that FILE was made from, instead of that in its first line
        #[arg(long, value_name = "REVISION")]
        base: Option<u64>,
    },
    /// Print the services that are stored
    Pull,
}

#[derive(Debug, Subcommand)]
pub enum FlowVerb {
    /// List flows
    #[command(visible_alias = "ls")]
    List(FlowList),
    /// Count flows by state
    Count,
    /// End flows: the next packet from either side is answered with a reset
    #[command(visible_alias = "rm")]
    Remove(FlowRemoval),
}

#[derive(Debug, ClapArgs)]
pub struct FlowList {
    #[command(flatten)]
    pub filter: FlowFilter,
    /// Maximum number of flows to list
    #[arg(long, value_name = "N", default_value_t = crate::api::routes::FLOWS_LISTED)]
    pub limit: usize,
}

#[derive(Debug, ClapArgs)]
pub struct FlowRemoval {
    #[command(flatten)]
    pub filter: FlowFilter,
    /// All flows of all services: needed if there is no filter
    #[arg(long, conflicts_with_all = ["service", "backend", "client"])]
    pub all: bool,
    /// Maximum number of flows to end
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

#[derive(Debug, ClapArgs)]
pub struct FlowFilter {
    /// Only flows of this service
    #[arg(long)]
    pub service: Option<String>,
    /// Only flows of this backend
    #[arg(long, value_name = "SERVICE/BACKEND")]
    pub backend: Option<BackendName>,
    /// Only flows of this client address or network
    #[arg(long, value_name = "CIDR")]
    pub client: Option<String>,
}

fn wait(text: &str) -> Result<Duration, String> {
    duration::parse(text, LEAST_WAIT..=MOST_WAIT)
}

fn weight(text: &str) -> Result<u32, String> {
    let weight = text.parse().ok().filter(|weight| rules::weight(*weight).is_ok());
    weight.ok_or_else(|| format!("expected 0 to {}", rules::MAX_WEIGHT))
}

/// Suggests `--wait=5s` for `--wait 5s`: an optional time needs `=`, because a name may follow (`--wait web/web-1`).
pub fn with_tip(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && wait(word).is_ok()
        && args.iter().any(|arg| arg == "--wait")
    {
        let tip = format!("write it with `=`: --wait={word}").into();
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

    #[test]
    fn each_command_and_each_argument_has_a_help_text() {
        fn look(path: &str, command: &clap::Command) {
            assert!(command.get_about().is_some(), "`{path}` has no help text");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "`{path}`: {} has no help text", argument.get_id());
            }
            for sub in command.get_subcommands() {
                look(&format!("{path} {}", sub.get_name()), sub);
            }
        }
        look("xlb", &Args::command());
    }

    fn leaves(path: &str, command: &clap::Command) -> Vec<String> {
        let below = command.get_subcommands().map(|sub| leaves(&format!("{path} {}", sub.get_name()), sub));
        let below: Vec<String> = below.flatten().collect();
        if below.is_empty() { vec![path.to_owned()] } else { below }
    }
}
