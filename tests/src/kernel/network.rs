//! The network of [`crate::world::network`], built from veths in a namespace of this thread, so that `bpf_fib_lookup`
//! gives the same routes as the host engine.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::world::network::{GATEWAYS, INTERFACES, Neighbour, PREFIXES, mac_of_interface};

/// The namespace, which is removed when its thread ends.
pub struct Network {
    known: BTreeSet<Neighbour>,
}

impl Network {
    /// Moves the thread into a new namespace, and sets up its network.
    pub fn enter() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        for family in ["ipv4", "ipv6"] {
            let all = format!("/proc/sys/net/{family}/conf/all/forwarding");
            fs::write(&all, "1").with_context(|| format!("write {all}"))?;
        }
        let mut batch = String::new();
        for (name, index) in INTERFACES {
            let mac = colons(mac_of_interface(index));
            batch += &format!(
                "link add name {name} index {index} address {mac} type veth peer name {name}-peer\n"
            );
            batch += &format!("link set {name}-peer up\nlink set {name} up\n");
        }
        for (_, bits, interface, own) in PREFIXES {
            let nodad = if own.contains(':') { "nodad" } else { "" };
            batch += &format!("addr add {own}/{bits} dev {} {nodad}\n", name_of(interface)?);
        }
        for (network, bits, gateway) in GATEWAYS {
            batch += &format!("route add {network}/{bits} via {gateway}\n");
        }
        ip(&batch)?;
        Ok(Self { known: BTreeSet::new() })
    }

    /// Sets the neighbour entries to exactly these.
    pub fn learn(&mut self, neighbours: &[Neighbour]) -> Result<()> {
        let wanted: BTreeSet<Neighbour> = neighbours.iter().copied().collect();
        let mut batch = String::new();
        for gone in self.known.difference(&wanted) {
            batch += &format!("neigh del {} dev {}\n", gone.address, name_of(gone.interface)?);
        }
        for it in wanted.difference(&self.known) {
            let (name, mac) = (name_of(it.interface)?, colons(it.mac));
            batch += &format!("neigh replace {} lladdr {mac} dev {name} nud permanent\n", it.address);
        }
        self.known = wanted;
        if batch.is_empty() { Ok(()) } else { ip(&batch) }
    }
}

fn name_of(index: u32) -> Result<&'static str> {
    let known = INTERFACES.iter().find(|(_, it)| *it == index);
    known.map(|(name, _)| *name).with_context(|| format!("there is no interface {index}"))
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs lines of ip(8) commands.
fn ip(batch: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ip, of the package iproute2")?;
    child.stdin.take().context("ip has no input")?.write_all(batch.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}\n{batch}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
