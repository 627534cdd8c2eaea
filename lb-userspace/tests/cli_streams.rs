//! Commands whose streams, files or daemons fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    cell::RefCell,
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use lb_userspace::{
    cli::{Host, World, failure::Failure, main_with, run},
    exit::Exit,
};
use log::LevelFilter;

thread_local! {
    /// What the fake daemon was called with: `Host` holds plain functions.
    static TOLD: RefCell<Option<run::Options>> = const { RefCell::new(None) };
}

const HOST: Host = Host {
    run: |options| {
        TOLD.with(|told| told.replace(Some(options)));
        Ok(())
    },
    check: |_| Err(Failure::new(Exit::Failed, "")),
    detach: |_| Err(anyhow::anyhow!("Operation not permitted").context("remove /sys/fs/bpf/xlb/v1").into()),
    program: || "/usr/sbin/xlb".into(),
    networks: || Ok(Vec::new()),
    settings: |_| Ok(None),
    keepalived: || Ok(None),
};

#[test]
fn a_flag_precedes_the_environment_which_precedes_the_default() {
    let env = [("XLB_CONFIG", "/env.toml"), ("XLB_SOCKET", "/env.sock")];
    let empty = [("XLB_CONFIG", ""), ("XLB_SOCKET", "")];
    let flags = ["run", "--config", "/flag.toml", "--socket", "/flag.sock", "--detach-on-exit"];

    assert_eq!(told(&flags, &env), options("/flag.toml", Some("/flag.sock"), true));
    assert_eq!(told(&["run"], &env), options("/env.toml", Some("/env.sock"), false));
    assert_eq!(told(&["run"], &[]), options("/etc/xlb/xlb.toml", None, false));
    assert_eq!(told(&["run"], &empty), options("/etc/xlb/xlb.toml", None, false));
}

#[test]
fn the_time_to_wait_for_interfaces_is_a_duration() {
    assert_eq!(
        told(&["run", "--wait-interfaces", "60s"], &[]).wait_interfaces,
        Some(Duration::from_secs(60))
    );
    assert_eq!(run_with(&["run", "--wait-interfaces", "soon"], &[]).0, 2);
}

#[test]
fn the_socket_of_the_file_is_used_by_default() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("xlb.toml");
    std::fs::write(&config, "[api]\nsocket = \"/of/the/file.sock\"\n").unwrap();

    let (code, _, stderr) = run_with(&["status"], &[("XLB_CONFIG", config.to_str().unwrap())]);

    assert_eq!(code, Exit::Unreachable.code());
    assert!(stderr.contains("/of/the/file.sock"), "{stderr}");
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let (code, stderr) = run_into(&mut Closed(io::ErrorKind::BrokenPipe), &["completions", "bash"]);

    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn a_full_disk_is_a_failure() {
    let (code, stderr) = run_into(&mut Closed(io::ErrorKind::StorageFull), &["completions", "bash"]);

    assert_eq!((code, stderr.as_str()), (1, "error: cannot write the output: no storage space\n"));
}

#[test]
fn each_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, stdout, _) = run_with(&["completions", shell], &[]);

        assert!(code == 0 && stdout.contains("drain"), "{shell}");
    }
}

#[test]
fn remains_of_a_dead_daemon_that_cannot_be_removed_are_reported() {
    let (code, _, stderr) = run_with(&["--socket", "/absent/xlb.sock", "detach"], &[]);

    assert_eq!((code, stderr.as_str()), (1, "error: remove /sys/fs/bpf/xlb/v1: Operation not permitted\n"));
}

fn options(config: &str, socket: Option<&str>, detach_on_exit: bool) -> run::Options {
    run::Options {
        config: config.into(),
        detach_on_exit,
        socket: socket.map(PathBuf::from),
        wait_interfaces: None,
        log: run::Log { level: LevelFilter::Info, filter: None, timestamps: true },
    }
}

fn told(args: &[&str], env: &[(&str, &str)]) -> run::Options {
    assert_eq!(run_with(args, env).0, 0);
    TOLD.with(|told| told.take()).unwrap()
}

fn run_with(args: &[&str], env: &[(&str, &str)]) -> (u8, String, String) {
    let mut stdout = Vec::new();
    let (code, stderr) = run_in(&mut stdout, args, env);
    (code, String::from_utf8(stdout).unwrap(), stderr)
}

fn run_into(stdout: &mut dyn Write, args: &[&str]) -> (u8, String) {
    run_in(stdout, args, &[])
}

fn run_in(stdout: &mut dyn Write, args: &[&str], env: &[(&str, &str)]) -> (u8, String) {
    let mut stderr = Vec::new();
    let code = main_with(World {
        args: std::iter::once("xlb").chain(args.iter().copied()).map(OsString::from).collect(),
        env: &|name| env.iter().find(|(this, _)| *this == name).map(|(_, value)| value.into()),
        stdout,
        stderr: &mut stderr,
        stdout_is_terminal: false,
        host: HOST,
    });
    (code, String::from_utf8(stderr).unwrap())
}

/// A stream that rejects all writes.
struct Closed(io::ErrorKind);

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
