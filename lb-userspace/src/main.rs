//! The binary `xlb`: the commands, with their implementation on a real host.

use std::process::ExitCode;

use lb_userspace::{
    cli::{self, Host},
    daemon,
};

fn main() -> ExitCode {
    cli::main(Host {
        run: daemon::run,
        check: daemon::check,
        detach: daemon::remove_remains,
        program: || std::env::current_exe().unwrap_or_else(|_unknown| "/usr/sbin/xlb".into()),
        networks: daemon::networks,
        settings: daemon::settings,
        keepalived: daemon::keepalived,
    })
}
