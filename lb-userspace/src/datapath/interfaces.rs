//! The configured interfaces as they are now: one that was deleted and made anew is attached to again.

use std::path::PathBuf;

use anyhow::Context;
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use log::{info, warn};

use super::{
    Attached,
    attach::{self, Pinned},
    pins,
    preflight::links::{self, Link},
};
use crate::spec::{AttachMode, Interface};

/// Looks after the interfaces while the daemon runs.
#[derive(Debug)]
pub struct Interfaces {
    configured: Vec<Interface>,
    pins: PathBuf,
    attached: Vec<Attached>,
}

impl Interfaces {
    pub fn new(configured: Vec<Interface>, pins: PathBuf, attached: Vec<Attached>) -> Self {
        Self { configured, pins, attached }
    }

    /// What the program is attached to. Attaches where a configured interface has come back.
    pub fn look(&mut self) -> anyhow::Result<Vec<Attached>> {
        let links = links::dump().context("ask netlink for the interfaces")?;
        let held = attach::pinned(&self.pins)?;
        for interface in self.configured.clone() {
            let Some(link) = links.iter().find(|link| link.name == interface.name) else {
                self.attached.retain(|it| it.name != interface.name);
                continue;
            };
            if held.iter().any(|pin| pin.interface == link.index && pin.is_alive(&links)) {
                self.renew(link);
            } else if let Err(error) = self.attach(&interface, link, &held) {
                self.attached.retain(|it| it.name != interface.name);
                warn!(interface = interface.name; "attach again: {error:#}");
            }
        }
        Ok(self.attached.clone())
    }

    fn renew(&mut self, link: &Link) {
        for it in self.attached.iter_mut().filter(|it| it.index == link.index) {
            it.mtu = link.mtu;
            it.mac = link.mac.unwrap_or(it.mac);
        }
    }

    fn attach(&mut self, interface: &Interface, link: &Link, held: &[Pinned]) -> anyhow::Result<()> {
        // A pin of that index or of the index that it had belongs to a device that is gone.
        let former = self.attached.iter().find(|it| it.name == interface.name).map(|it| it.index);
        for pin in held.iter().filter(|pin| pin.interface == link.index || Some(pin.interface) == former) {
            pin.remove()?;
        }
        let path = self.pins.join(pins::PROGRAM);
        let mut program = Xdp::from_pin(&path, XdpAttachType::Interface)
            .with_context(|| format!("open {}", path.display()))?;
        let mode = match self.attached.iter().find(|it| it.name != interface.name) {
            // Native on all interfaces, or generic on all.
            Some(other) if interface.mode == AttachMode::Auto && other.mode == "generic" => {
                AttachMode::Generic
            }
            Some(_) | None => interface.mode,
        };
        let wanted = [attach::Wanted { link, mode, held: None }];
        let outcome = attach::attach(&mut program, &wanted, &self.pins)?;
        outcome.warnings.iter().for_each(|warning| warn!("{warning}"));
        self.attached.retain(|it| it.name != interface.name);
        for it in outcome.attached {
            info!(interface = it.name, mode = it.mode; "attached again");
            self.attached.push(it);
        }
        Ok(())
    }
}
