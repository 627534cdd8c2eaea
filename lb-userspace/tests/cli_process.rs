//! The binary as a shell sees it: exit codes, stdout and stderr. Without root, without a daemon.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use lb_userspace::{datapath, paths};
use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

const GOOD: &str = r#"version = 1

[[interface]]
name = "lo"

[[service]]
name = "web"
listen = ["192.0.2.10:80"]
protocol = "tcp"
source = ["10.0.0.1"]

[[service.backend]]
name = "web-1"
address = "10.0.0.11:8080"
"#;

#[test]
fn a_binary_without_the_program_says_so_before_anything_else() {
    if datapath::object().is_some() {
        return eprintln!("not run: this xlb was built with the XDP program");
    }
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("xlb.toml"), GOOD).unwrap();

    for file in ["xlb.toml", "missing.toml"] {
        let seen = xlb(place.path(), &["run", "--config", file]);

        assert_eq!(
            seen,
            (
                78,
                String::new(),
                "error: this xlb was built without the XDP program: build it with `cargo xtask build`\n"
                    .into()
            )
        );
        assert_eq!(names(place.path()), ["xlb.toml"]);
    }
}

#[test]
fn a_valid_file_is_reported_with_its_memory() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("xlb.toml"), GOOD).unwrap();

    let (code, stdout, stderr) = xlb(place.path(), &["check", "xlb.toml"]);

    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("xlb.toml is valid: 1 service, 1 backend on lo\n"), "{stdout}");
}

#[test]
fn mistakes_are_reported_with_line_and_column() {
    let place = TempDir::new().unwrap();
    let wrong = GOOD.replace("10:80", "10:0").replace("source", "sources");
    fs::write(place.path().join("wrong.toml"), wrong).unwrap();

    let wrong = xlb(place.path(), &["check", "wrong.toml"]);

    assert_eq!(
        wrong,
        (
            6,
            String::new(),
            r#"wrong.toml:8:11: `0` is not a port: expected 1 to 65535
    8 | listen = ["192.0.2.10:0"]
      |           ^^^^^^^^^^^^^^
wrong.toml:10:1: unknown key `sources` in [[service]]: did you mean `source`?
   10 | sources = ["10.0.0.1"]
      | ^^^^^^^
error: wrong.toml is not a valid configuration
"#
            .into()
        )
    );
}

#[test]
fn a_missing_file_is_reported_with_the_ways_to_name_another() {
    let place = TempDir::new().unwrap();
    let missing = |path: &str| {
        let told = format!(
            "error: {path}: no such file\nhint: choose another file with `xlb check FILE` or XLB_CONFIG\n"
        );
        (6, String::new(), told)
    };

    assert_eq!(xlb(place.path(), &["check", "missing.toml"]), missing("missing.toml"));
    if Path::new(paths::CONFIG).exists() {
        return eprintln!("not run: this host has {}", paths::CONFIG);
    }
    assert_eq!(xlb(place.path(), &["check"]), missing(paths::CONFIG));
}

#[test]
fn a_file_may_come_from_a_pipe_but_a_fifo_without_writer_does_not_block() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("xlb.toml"), GOOD).unwrap();
    mkfifo(&place.path().join("fifo"), Mode::S_IRUSR).unwrap();

    let piped = Command::new("sh")
        .args(["-c", r#"cat xlb.toml | "$0" check /dev/stdin"#, env!("CARGO_BIN_EXE_xlb")])
        .current_dir(place.path())
        .output()
        .unwrap();
    let (code, stdout, stderr) = xlb(place.path(), &["check", "fifo"]);

    assert!(piped.status.success(), "{piped:?}");
    assert_eq!((code, stdout.as_str()), (6, ""));
    assert_eq!(stderr, "error: fifo: is not a regular file\n");
}

#[test]
fn without_a_daemon_commands_name_the_socket() {
    let place = TempDir::new().unwrap();

    for words in [
        &["status"][..],
        &["backend", "drain", "web/web-1"],
        &["reload"],
        &["metrics"],
        &["flow", "count"],
        &["service", "list", "-o", "json"],
    ] {
        let (code, stdout, stderr) = xlb(place.path(), &[&["--socket", "xlb.sock"], words].concat());

        assert_eq!((code, stdout.as_str()), (4, ""), "{words:?}");
        assert!(stderr.starts_with("error: cannot reach the daemon at xlb.sock: "), "{words:?}: {stderr}");
    }
    let (code, stdout, stderr) = xlb(place.path(), &["--socket", "xlb.sock", "status", "--check"]);
    assert!(code == 3 && stdout.starts_with("XLB UNKNOWN: ") && stderr.is_empty(), "{code} {stdout}{stderr}");
}

#[test]
fn an_invalid_command_line_is_a_usage_error() {
    let place = TempDir::new().unwrap();

    for words in [
        &[][..],
        &["start"],
        &["run", "now"],
        &["backend", "drain", "web-1"],
        &["backend", "weight", "web/web-1", "many"],
        &["backend", "backup", "web/web-1", "perhaps"],
        &["backend", "add", "web/web-1", "10.0.0.11"],
        &["--output", "yaml", "status"],
    ] {
        let (code, stdout, stderr) = xlb(place.path(), words);

        assert_eq!((code, stdout.as_str()), (2, ""), "{words:?}");
        assert!(stderr.contains("Usage: ") || stderr.contains("--help"), "{words:?}: {stderr}");
    }
}

/// Runs the binary in a directory: its exit code, stdout and stderr.
fn xlb(place: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xlb"));
    let places = [("XLB_STATE", place.join("state")), ("XLB_PINS", place.join("pins"))];
    command.current_dir(place).args(words).env_remove("XLB_SOCKET").env_remove("XLB_CONFIG").envs(places);

    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}
