//! An XDP program that passes everything, for the far end of a cable.
//!
//! What XDP sends out of a veth by `XDP_TX` arrives only if the other end has a program too.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode, links::FdLink},
};

use super::link::End;

const OBJECTS: &str = "target/bpf/bpfel-unknown-none/bpf";
/// The object that holds the program, and its name there.
const OBJECT: &str = "bench";
const PROGRAM: &str = "pass";

/// Passes everything that arrives at `end`, until the lab's bpffs is unmounted.
pub fn pass_everything((namespace, interface): End, bpffs: &Path) -> Result<()> {
    let object = object();
    namespace.inside(|| {
        let mut ebpf = Ebpf::load_file(&object)
            .with_context(|| format!("load {}; it is made by `cargo xtask build`", object.display()))?;
        let program: &mut Xdp =
            ebpf.program_mut(PROGRAM).context("the object has no such program")?.try_into()?;
        program.load().context("load the program")?;
        let id = program.attach(interface, XdpMode::Driver).context("attach the program")?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(bpffs.join(format!("{PROGRAM}-{namespace}-{interface}"))).context("pin the link")?;
        Ok(())
    })
}

/// `XLB_BPF_DIR`, else where `cargo xtask build` leaves its objects.
fn object() -> PathBuf {
    let objects =
        std::env::var_os("XLB_BPF_DIR").map_or_else(|| super::workspace().join(OBJECTS), PathBuf::from);
    objects.join(OBJECT)
}
