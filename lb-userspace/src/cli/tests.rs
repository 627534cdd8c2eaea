//! The exact output of commands: `tests/cli/*.golden`, with an API whose controller is a fake.
//!
//! ```text
//!  $ XLB_SOCKET=/absent xlb status      variables first; TTY=1 stands for a terminal
//! a line on stdout
//! \# a line on stdout that begins with #
//! ! a line on stderr                   escape is ␛, our version is VERSION
//! ? 4                                  the exit code, if it is not 0
//! ```
//!
//! Each file has its own daemon. `XLB_BLESS=1 cargo test -p lb-userspace cli::tests` writes the files: read the diff.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Write,
    fs,
    path::Path,
};

use lb_common::settings::PortPool;

use super::{Checked, Exit, Failure, Host, World, main_with};
use crate::{
    datapath::shapes::{Rings, memory::Memory},
    fake::{Balancer, Daemon},
    interface_address::InterfaceAddress,
    interface_settings::InterfaceSettings,
    metrics::render,
    spec::{self, source_ports::SourcePorts},
};

macro_rules! golden {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name));
        })*
    };
}

golden! { backend changes check cluster detach drain flow group ha health reload role service stats status terminal usage }

#[test]
fn metrics_are_printed_as_the_daemon_sends_them() {
    let mut balancer = Balancer::new();
    let daemon = Daemon::in_a_thread(move |request| balancer.answer(request));

    let printed = transcript("xlb metrics", &daemon);

    let sent = render(&Balancer::metrics()).unwrap();
    assert_eq!(printed, sent.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

fn compare(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name).with_extension("golden");
    let golden = fs::read_to_string(&path).unwrap();
    let mut balancer = Balancer::new();
    let daemon = Daemon::in_a_thread(move |request| balancer.answer(request));

    let mut actual = String::new();
    for paragraph in golden.lines().filter(|line| line.starts_with("$ ") || line.starts_with('#')) {
        if !actual.is_empty() && !actual.ends_with("\n\n") && !actual.ends_with("#\n") {
            actual.push('\n');
        }
        writeln!(actual, "{paragraph}").unwrap();
        match paragraph.strip_prefix("$ ") {
            Some(command) => actual.push_str(&escaped(&transcript(command, &daemon))),
            None => actual.push('\n'),
        }
    }

    if std::env::var_os("XLB_BLESS").is_some() {
        fs::write(&path, &actual).unwrap();
    } else {
        assert!(actual == golden, "{} says otherwise; this is what was seen:\n{actual}", path.display());
    }
}

/// Paragraphs that begin with `#` are remarks in the file.
fn escaped(transcript: &str) -> String {
    let mark = |line: &str| if line.starts_with('#') { "\\" } else { "" };
    transcript.lines().map(|line| format!("{}{line}\n", mark(line))).collect()
}

/// Runs a command and records its output.
fn transcript(command: &str, daemon: &Daemon) -> String {
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
        host: HOST,
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

/// A host that cannot run the daemon, with one valid file and the pins of a dead daemon.
const HOST: Host = Host {
    run: |_| {
        let message = "this xlb was built without the XDP program: build it with `cargo xtask build`";
        Err(Failure::new(Exit::HostUnfit, message))
    },
    check: |path| {
        let spec = spec::parse("good.toml", GOOD).unwrap();
        let memory = Memory::of(spec.limits, Rings::IDLE, 2);
        let ports = SourcePorts::of(&spec, PortPool::around(32_768, 60_999));
        if path.ends_with("good.toml") {
            Ok(Checked { spec, memory, ports, warnings: Vec::new(), in_force: None })
        } else if path.ends_with("announcing.toml") || path.ends_with("both-families.toml") {
            let device = GOOD.replace("[[service]]", "[announce]\ndevice = \"lo\"\n\n[[service]]");
            let text = match path.ends_with("both-families.toml") {
                true => {
                    device
                        .replace("10:80\"", "10:80\", \"[2001:db8::10]:80\"")
                        .replace("10.0.0.1\"", "10.0.0.1\", \"fd00::1\"")
                        + "[[service.backend]]\nname = \"web-1-v6\"\naddress = \"[fd00::11]:8080\"\n"
                }
                false => device,
            };
            Ok(Checked {
                spec: spec::parse("announcing.toml", &text).unwrap(),
                memory,
                ports,
                warnings: Vec::new(),
                in_force: None,
            })
        } else if path.ends_with("without-ports.toml") {
            let warning = "no source ports: narrow the range".to_owned();
            Ok(Checked { spec, memory, ports, warnings: vec![warning], in_force: None })
        } else {
            let name = path.display().to_string();
            let wrong = GOOD.replace("10:80", "10:0").replace("source", "sources");
            let mistakes = match name.as_str() {
                "/" => spec::read(path, &BTreeSet::new()),
                _ => spec::parse(&name, &wrong),
            };
            Err(Failure::invalid(path, mistakes.unwrap_err()))
        }
    },
    detach: |_| Ok(true),
    program: || "/usr/sbin/xlb".into(),
    networks: || {
        let network = |interface: &str, net: &str| InterfaceAddress {
            interface: interface.into(),
            net: net.parse().unwrap(),
        };
        Ok(vec![network("eth0", "192.0.2.2/24"), network("eth1", "10.0.0.2/24")])
    },
    settings: |interface| {
        let interface = interface.to_owned();
        Ok(Some(InterfaceSettings { interface, arp_ignore: 0, arp_announce: 0, rp_filter: 1 }))
    },
    keepalived: || Ok(None),
};

const GOOD: &str = r#"version = 1

[[interface]]
name = "eth0"

[[service]]
name = "web"
listen = ["192.0.2.10:80"]
source = ["10.0.0.1"]

[[service.backend]]
name = "web-1"
address = "10.0.0.11:8080"
"#;
