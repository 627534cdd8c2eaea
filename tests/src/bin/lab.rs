//! `lab`: the demo, and its network for experiments. Needs root; `cargo xtask demo` and `cargo xtask lab` run it.

use std::{
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use lb_common::net::Protocol;
use tests::lab::{daemon, database, demo, echo, failover, sweep};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

/// What a shell reports for a program that ended by SIGINT.
const INTERRUPTED: i32 = 130;

/// Set when a signal arrives: then errors no longer matter, only the cleanup.
static IS_CLEANING: AtomicBool = AtomicBool::new(false);

#[derive(Parser)]
#[command(name = "lab", about = "xlb in a network of namespaces", disable_help_subcommand = true)]
enum Lab {
    /// Show xlb at work, and clean up
    Demo {
        /// Leave everything up at the end
        #[arg(long)]
        keep: bool,
        /// Print the figures only
        #[arg(long)]
        json: bool,
    },
    /// Show a database cluster behind xlb, and clean up
    Database {
        /// Leave the last cluster up
        #[arg(long)]
        keep: bool,
        /// Print the figures only
        #[arg(long)]
        json: bool,
    },
    /// Show what clients notice when a node fails, and clean up
    Failover {
        /// Leave the last pair up
        #[arg(long)]
        keep: bool,
        /// Print the figures only
        #[arg(long)]
        json: bool,
    },
    /// Build the demo's network, start everything in it, and leave it up
    Up,
    /// Open a shell on a host of the network that is up
    Shell {
        /// client, xlb, switch, web-1, web-2 or web-3
        #[arg(default_value = "client")]
        host: String,
    },
    /// Remove every network that was left up
    Down,
    /// Echo everything; over UDP, after a name
    #[command(hide = true)]
    Echo { protocol: Transport, name: String, address: SocketAddr },
}

#[derive(Clone, Copy, ValueEnum)]
enum Transport {
    Tcp,
    Udp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

fn main() -> ExitCode {
    match run(Lab::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if IS_CLEANING.load(Ordering::SeqCst) => loop {
            // The other thread removes the lab meanwhile, so errors are expected; it ends the process.
            thread::park();
        },
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(lab: Lab) -> Result<()> {
    match lab {
        Lab::Demo { keep, json } => {
            clean_up_when_interrupted()?;
            demo::run(demo::Options { keep, json })
        }
        Lab::Database { keep, json } => {
            clean_up_when_interrupted()?;
            database::demo::run(demo::Options { keep, json })
        }
        Lab::Failover { keep, json } => {
            clean_up_when_interrupted()?;
            failover::demo::run(demo::Options { keep, json })
        }
        Lab::Up => {
            clean_up_when_interrupted()?;
            demo::up()
        }
        Lab::Shell { host } => shell(&host),
        Lab::Down => sweep::kept()?.iter().try_for_each(|lab| sweep::remove(lab)),
        Lab::Echo { protocol, name, address } => echo::serve(protocol.into(), name, address),
    }
}

/// Opens a shell in the newest network that is up, with the environment for `xlb`.
fn shell(host: &str) -> Result<()> {
    let lab = sweep::kept()?.pop().context("no lab is up; start one with `cargo xtask lab up`")?;
    let binary = daemon::binary()?;
    let programs = binary.parent().map(|path| path.display().to_string()).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let error = Command::new("ip")
        .args(["netns", "exec", &format!("{lab}-{host}")])
        .arg(shell)
        .envs(daemon::environment(&sweep::directory(&lab)))
        .env("PATH", format!("{programs}:{path}"))
        .exec();
    Err(error).context("run `ip netns exec`")
}

/// On SIGINT or SIGTERM: removes what this process made, then ends it.
fn clean_up_when_interrupted() -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        IS_CLEANING.store(true, Ordering::SeqCst);
        eprintln!("interrupted: cleaning up");
        if let Err(error) = sweep::remove_own() {
            eprintln!("error: {error:#}");
        }
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}
