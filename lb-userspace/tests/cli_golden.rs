//! What the commands say, word for word: `tests/cli/*.golden`, against an API whose controller is made up.
//!
//! ```text
//! $ XLB_SOCKET=/absent xlb status      variables first; TTY=1 stands for a terminal
//! a line on stdout
//! ! a line on stderr                   escape is ␛, our version is VERSION
//! ? 4                                  the exit code, if it is not 0
//! ```
//!
//! Each file has a daemon of its own. `XLB_BLESS=1 cargo test` writes the files anew; read the difference.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "cli/fake.rs"]
mod fake;

use std::{collections::BTreeMap, ffi::OsString, fmt::Write, fs, path::Path};

use lb_userspace::cli::{World, main_with};

macro_rules! golden {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name));
        })*
    };
}

golden! { backend changes check detach drain flow health metrics reload service stats status terminal usage }

fn compare(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name).with_extension("golden");
    let golden = fs::read_to_string(&path).unwrap();
    let daemon = fake::Daemon::start();

    let mut actual = String::new();
    for paragraph in golden.lines().filter(|line| line.starts_with("$ ") || line.starts_with('#')) {
        if !actual.is_empty() && !actual.ends_with("\n\n") && !actual.ends_with("#\n") {
            actual.push('\n');
        }
        writeln!(actual, "{paragraph}").unwrap();
        match paragraph.strip_prefix("$ ") {
            Some(command) => actual.push_str(&transcript(command, &daemon)),
            None => actual.push('\n'),
        }
    }

    if std::env::var_os("XLB_BLESS").is_some() {
        fs::write(&path, &actual).unwrap();
    } else {
        assert!(actual == golden, "{} says otherwise; this is what was seen:\n{actual}", path.display());
    }
}

/// Runs a command and writes down what it said.
fn transcript(command: &str, daemon: &fake::Daemon) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let args = words.iter().position(|word| *word == "xlb").unwrap();
    let mut env: BTreeMap<&str, OsString> = words[..args]
        .iter()
        .map(|word| word.split_once('=').unwrap())
        .map(|(name, value)| (name, value.into()))
        .collect();
    env.entry("XLB_SOCKET").or_insert_with(|| daemon.socket().into());

    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let code = main_with(World {
        args: words[args..].iter().map(OsString::from).collect(),
        env: &|name| env.get(name).cloned(),
        stdout: &mut stdout,
        stderr: &mut stderr,
        stdout_is_terminal: env.contains_key("TTY"),
        host: fake::HOST,
    });

    let mut said = String::new();
    for line in shown(&stdout).lines() {
        writeln!(said, "{line}").unwrap();
    }
    for line in shown(&stderr).lines() {
        writeln!(said, "! {line}").unwrap();
    }
    if code != 0 {
        writeln!(said, "? {code}").unwrap();
    }
    said
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.replace('\u{1b}', "␛").replace(env!("CARGO_PKG_VERSION"), "VERSION")
}
