//! The array through which the XDP program calls its slow paths.
//!
//! Each loaded program has an array of its own, pinned as `slow_paths_<id of the program>`. The kernel empties an array
//! as soon as its last file descriptor and pin are gone, whether or not a program still uses it. So a new program's array
//! is filled and pinned before any link gets that program, and an old array's pin stays until
//!
//! 1. all links have a different program, and
//! 2. every run of the old program is over: one RCU grace period ([`grace_period`](super::grace_period)).
//!
//! An interrupted start leaves one pin too many, never one too few. The next start removes it.

use std::path::Path;

use anyhow::{Context, anyhow};
use aya::{Ebpf, maps::ProgramArray, programs::Xdp};
use lb_ebpf::path::slow::SlowPath;

use crate::datapath::pins;

const MAP: &str = "SLOW_PATHS";

/// Loads the slow paths of a program, and pins the array of them.
pub fn load(ebpf: &mut Ebpf, program: u32, directory: &Path) -> anyhow::Result<()> {
    for &path in SlowPath::ALL {
        let name = path.name();
        let xdp: &mut Xdp = ebpf
            .program_mut(name)
            .ok_or_else(|| anyhow!("the object has no program `{name}`"))?
            .try_into()
            .with_context(|| format!("the program `{name}` is not XDP"))?;
        xdp.load().with_context(|| format!("cannot load the program `{name}`"))?;
        let fd = xdp.fd()?.try_clone().context("cannot duplicate the file descriptor of a program")?;
        array(ebpf)?.set(path as u32, &fd, 0).with_context(|| format!("cannot write {MAP}: `{name}`"))?;
    }
    let path = directory.join(pins::slow_paths_name(program));
    // A stale array: the kernel has reused the program id.
    pins::remove_file(&path)?;
    array(ebpf)?.pin(&path).with_context(|| format!("cannot pin {}", path.display()))
}

fn array(ebpf: &mut Ebpf) -> anyhow::Result<ProgramArray<&mut aya::maps::MapData>> {
    let map = ebpf.map_mut(MAP).ok_or_else(|| anyhow!("the XDP program has no map {MAP}"))?;
    ProgramArray::try_from(map).with_context(|| format!("cannot use the map {MAP}"))
}
