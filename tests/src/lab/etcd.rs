//! Three members of etcd, on the first three backends, which talk only to those that have a certificate of their CA.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use super::{Backend, Family, Lab, config::Cluster, nodes::Authority, process::Program};

const MEMBERS: usize = 3;
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;

/// The members, which may be dead. Dropping it kills them.
pub struct Etcd {
    ca: Authority,
    members: Vec<Member>,
}

struct Member {
    /// The files of its certificate and its key.
    identity: [PathBuf; 2],
    process: Program,
}

impl Etcd {
    /// Starts all members, and does not wait.
    pub fn start(lab: &Lab) -> Result<Self> {
        ensure!(lab.backends.len() >= MEMBERS, "etcd needs {MEMBERS} backends");
        let mut etcd = Self { ca: Authority::new(lab.directory())?, members: Vec::new() };
        for (number, host) in lab.backends[..MEMBERS].iter().enumerate() {
            let identity = etcd.ca.issue(&host.address.of(Family::V4).to_string())?;
            let process = launch(lab, number, &etcd.ca, &identity)?;
            etcd.members.push(Member { identity, process });
        }
        Ok(etcd)
    }

    /// What a node with this name needs to reach it.
    pub fn cluster(&self, lab: &Lab, node: &str) -> Result<Cluster> {
        let [cert, key] = self.ca.issue(node)?;
        Ok(Cluster {
            node: node.to_owned(),
            endpoints: lab.backends[..MEMBERS].iter().map(|it| url(it, CLIENTS)).collect(),
            ca: self.ca.file.clone(),
            cert,
            key,
        })
    }

    /// Kills a member at once.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.members[number].process.kill()
    }

    /// Starts a member that was killed, with the data that it had.
    pub fn start_again(&mut self, lab: &Lab, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        member.process = launch(lab, number, &self.ca, &member.identity)?;
        Ok(())
    }
}

fn launch(lab: &Lab, number: usize, ca: &Authority, [cert, key]: &[PathBuf; 2]) -> Result<Program> {
    let host = &lab.backends[number];
    let file = |end: &str| lab.directory().join(format!("{}.etcd{end}", host.name));
    let log = File::options().create(true).append(true).open(file(".log"))?;
    let (clients, peers) = (url(host, CLIENTS), url(host, PEERS));
    let all: Vec<_> =
        lab.backends[..MEMBERS].iter().map(|it| format!("{}={}", it.name, url(it, PEERS))).collect();
    let mut command = host.namespace.command(Path::new("etcd"));
    command
        .args(["--name", &host.name, "--data-dir", &file("").display().to_string()])
        .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
        .args(["--client-cert-auth", "--peer-client-cert-auth"])
        .args(["--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let files = [("cert-file", cert), ("key-file", key), ("trusted-ca-file", &ca.file)];
    for (option, file) in files {
        command.arg(format!("--{option}={}", file.display()));
        command.arg(format!("--peer-{option}={}", file.display()));
    }
    Ok(command.spawn().context("start etcd; `cargo xtask setup` installs it")?.into())
}

fn url(host: &Backend, port: u16) -> String {
    format!("https://{}", host.address.port(Family::V4, port))
}
