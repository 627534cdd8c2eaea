//! The commands. Those that show something change nothing; those that change something print what they changed.
//!
//! Data goes to stdout, messages go to stderr. All but `run`, `check`, `completions`, and `detach` when no daemon is
//! running, are requests to the daemon's API. The entry point is [`main_with`], which takes its environment as
//! arguments.

mod args;
mod backend;
pub mod check;
mod cluster;
mod completions;
mod console;
mod detach;
pub mod failure;
mod flow;
mod group;
mod ha;
mod health;
mod metrics;
mod reload;
mod role;
pub mod run;
mod service;
mod socket;
mod stats;
mod status;
mod table;
mod units;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use tokio::runtime;

use crate::{
    api::client::Client, exit::Exit, interface_address::InterfaceAddress,
    interface_settings::InterfaceSettings, paths, track_file::TrackFile,
};
use args::{Args, ClientCommand, ClusterVerb, Command, HaVerb};
use check::Checked;
use console::Console;
use failure::Failure;
use ha::{bird, keepalived::Pair};

/// The environment of a command.
pub struct World<'a> {
    /// Arguments, starting with the name of the program.
    pub args: Vec<OsString>,
    /// An environment variable, if it is set.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    /// Data; flushed before the command ends.
    pub stdout: &'a mut dyn Write,
    /// Messages. A daemon's log goes to the stderr of the process.
    pub stderr: &'a mut dyn Write,
    /// Enables colours, and makes `--watch` redraw in place.
    pub stdout_is_terminal: bool,
    /// The daemon and offline commands; replaced in tests.
    pub host: Host,
}

/// What commands do on this host without a daemon.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Runs the daemon until it ends.
    pub run: fn(run::Options) -> Result<(), Failure>,
    /// Reads a configuration, or returns all its errors.
    pub check: fn(&Path) -> Result<Checked, Failure>,
    /// Removes the data plane of a daemon that is gone and listened on this socket. `false`: there was none.
    pub detach: fn(&Path) -> Result<bool, Failure>,
    /// Where this program is.
    pub program: fn() -> PathBuf,
    /// The networks of this host.
    pub networks: fn() -> anyhow::Result<Vec<InterfaceAddress>>,
    /// Settings of an interface. `None`: there is no such interface.
    pub settings: fn(&str) -> anyhow::Result<Option<InterfaceSettings>>,
    /// The configuration of keepalived. `None`: there is none.
    pub keepalived: fn() -> Result<Option<String>, String>,
}

/// The entry point of the binary: [`main_with`] with the real environment.
pub fn main(host: Host) -> ExitCode {
    // Not locked: the daemon logs from all its threads.
    let mut stdout = io::BufWriter::new(io::stdout());
    let world = World {
        args: std::env::args_os().collect(),
        env: &|name| std::env::var_os(name),
        stdout_is_terminal: io::stdout().is_terminal(),
        stdout: &mut stdout,
        stderr: &mut io::stderr(),
        host,
    };
    ExitCode::from(main_with(world))
}

/// Runs the command. Returns the exit code.
pub fn main_with(world: World<'_>) -> u8 {
    let World { args, env, stdout, stderr, stdout_is_terminal, host } = world;
    let args = match Args::try_parse_from(&args) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            let _closed = write!(stderr, "{}", args::with_tip(error, &args).render());
            return Exit::Usage.code();
        }
        Err(help) => return show_help(stdout, &help, stdout_is_terminal && console::may_colour(env)),
    };

    let mut console = Console::new(stdout, stderr, &args.global, env, stdout_is_terminal);
    let outcome = dispatch(args, &mut console, env, host);
    match outcome.and_then(|code| console.flush().map(|()| code)) {
        Ok(code) => code,
        Err(failure) if failure.is_closed_pipe() => Exit::Done.code(),
        Err(failure) => {
            // Flush data before the error message.
            let _also_failed = console.flush();
            console.fail(&failure);
            failure.exit.code()
        }
    }
}

fn dispatch(
    args: Args,
    console: &mut Console<'_>,
    env: &dyn Fn(&str) -> Option<OsString>,
    host: Host,
) -> Result<u8, Failure> {
    let Args { global, command } = args;
    let from_env = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = |given: Option<PathBuf>| {
        given.or_else(|| from_env("XLB_CONFIG")).unwrap_or_else(|| PathBuf::from(paths::CONFIG))
    };
    let verbosity = global.verbosity();
    let chosen_socket = global.socket.or_else(|| from_env("XLB_SOCKET"));

    match command {
        Command::Run { config: given, detach_on_exit, wait_interfaces } => {
            let options = run::Options {
                config: config(given),
                detach_on_exit,
                socket: chosen_socket,
                wait_interfaces,
                log: run::Log::new(verbosity, env),
            };
            (host.run)(options).map(|()| Exit::Done.code())
        }
        Command::Check { file } => check::check(console, &config(file), host.check),
        Command::Ha { verb: HaVerb::Node(verb) } => {
            let client = client(console, chosen_socket, &config(None))?;
            block_on(ha::node(console, &client, verb)).map(|()| Exit::Done.code())
        }
        Command::Ha { verb: HaVerb::Check { file } } => {
            let spec = (host.check)(&config(file))?.into_force();
            let client = Client::new(chosen_socket.unwrap_or_else(|| spec.api.socket.clone()));
            block_on(ha::check::check(console, &client, spec, host))
        }
        Command::Ha { verb: HaVerb::Keepalived { file, also, router_id } } => {
            let file = config(file);
            let spec = (host.check)(&file)?.into_force();
            let socket = chosen_socket.unwrap_or_else(|| spec.api.socket.clone());
            let networks = (host.networks)()?;
            let pair = Pair {
                file: &file,
                spec: &spec,
                program: &(host.program)(),
                socket: &socket,
                track_file: TrackFile::beside(&socket),
                networks: &networks,
                also: &also,
                router_id,
            };
            console.line(pair.fragment().trim_end()).map(|()| Exit::Done.code())
        }
        Command::Ha { verb: HaVerb::Bird { file, neighbor, local_as, neighbor_as, router_id } } => {
            let file = config(file);
            let spec = (host.check)(&file)?.into_force();
            let networks = (host.networks)()?;
            let node = bird::Node {
                file: &file,
                spec: &spec,
                networks: &networks,
                neighbors: &neighbor,
                local_as,
                neighbor_as,
                router_id,
            };
            console.line(node.configuration()?.trim_end()).map(|()| Exit::Done.code())
        }
        Command::Completions { shell } => completions::completions(console, shell),
        Command::Client(ClientCommand::Cluster { verb: ClusterVerb::Push { file, base } }) => {
            let client = client(console, chosen_socket, &config(None))?;
            let push = ClientCommand::Cluster { verb: ClusterVerb::Push { file: Some(config(file)), base } };
            block_on(ask(push, console, &client, host))
        }
        Command::Client(command) => {
            let client = client(console, chosen_socket, &config(None))?;
            block_on(ask(command, console, &client, host))
        }
    }
}

fn client(console: &mut Console<'_>, chosen: Option<PathBuf>, config: &Path) -> Result<Client, Failure> {
    let socket = chosen.unwrap_or_else(|| socket::of_file(config));
    console.say_more(&format!("connecting to {}", socket.display()))?;
    Ok(Client::new(socket))
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, format!("start: {error}")))?;
    runtime.block_on(work)
}

async fn ask(
    command: ClientCommand,
    console: &mut Console<'_>,
    client: &Client,
    host: Host,
) -> Result<u8, Failure> {
    match command {
        ClientCommand::Status { check: true } => return status::check(console, client).await,
        ClientCommand::Status { check: false } => status::show(console, client).await?,
        ClientCommand::Service { verb } => service::service(console, client, verb).await?,
        ClientCommand::Backend { verb } => backend::backend(console, client, verb).await?,
        ClientCommand::Health { verb } => health::health(console, client, verb).await?,
        ClientCommand::Role { verb } => role::role(console, client, verb).await?,
        ClientCommand::Cluster { verb } => cluster::cluster(console, client, verb).await?,
        ClientCommand::Group { verb } => group::group(console, client, verb).await?,
        ClientCommand::Flow { verb } => flow::flow(console, client, verb).await?,
        ClientCommand::Stats { of, watch } => stats::stats(console, client, of, watch).await?,
        ClientCommand::Metrics => metrics::metrics(console, client).await?,
        ClientCommand::Reload => reload::reload(console, client).await?,
        ClientCommand::Detach => detach::detach(console, client, host.detach).await?,
    }
    Ok(Exit::Done.code())
}

/// Help and version go to stdout.
fn show_help(stdout: &mut dyn Write, help: &clap::Error, is_colourful: bool) -> u8 {
    let text = help.render();
    let text = if is_colourful { text.ansi().to_string() } else { text.to_string() };
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Exit::Failed.code(),
        Ok(()) | Err(_) => Exit::Done.code(),
    }
}

#[cfg(test)]
mod tests;
