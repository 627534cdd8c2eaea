//! The array through which the XDP program calls its slow paths.
//!
//! Each loaded program has an array of its own, pinned as `slow_paths_<id of the program>`. The kernel empties an array
//! as soon as its last file descriptor and pin are gone, whether or not a program still uses it. So a new program's array
//! is filled and pinned before any link gets that program, and an old array's pin stays until
//!
//! 1. all links have another program, and
//! 2. every run of the old program is over: one RCU grace period ([`grace_period`]).
//!
//! An interrupted start leaves one pin too many, never one too few. The next start removes it.

use std::{io, path::Path};

use anyhow::{Context, anyhow};
use aya::{Ebpf, maps::ProgramArray, programs::Xdp};
use lb_ebpf::path::slow::SlowPath;
use nix::{errno::Errno, libc};

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
        xdp.load().with_context(|| format!("load the program `{name}`"))?;
        let fd = xdp.fd()?.try_clone().context("duplicate the file descriptor of a program")?;
        array(ebpf)?.set(path as u32, &fd, 0).with_context(|| format!("write {MAP}: `{name}`"))?;
    }
    let path = directory.join(pins::slow_paths_name(program));
    // A stale array: the kernel has reused the program id.
    pins::remove_file(&path)?;
    array(ebpf)?.pin(&path).with_context(|| format!("pin {}", path.display()))
}

fn array(ebpf: &mut Ebpf) -> anyhow::Result<ProgramArray<&mut aya::maps::MapData>> {
    let map = ebpf.map_mut(MAP).ok_or_else(|| anyhow!("the XDP program has no map {MAP}"))?;
    ProgramArray::try_from(map).with_context(|| format!("use the map {MAP}"))
}

/// Waits until no CPU runs a program that has been replaced.
///
/// `membarrier(MEMBARRIER_CMD_GLOBAL)` is `synchronize_rcu` (kernel/sched/membarrier.c), and programs run in RCU read
/// sections. Kernels that run with `nohz_full` refuse it.
pub fn grace_period() -> io::Result<()> {
    let (flags, cpu): (libc::c_uint, libc::c_int) = (0, 0);
    // SAFETY: a system call with three integers, which does not touch our memory.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, flags, cpu) };
    Errno::result(done).map(drop).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_period_ends() {
        grace_period().unwrap();
    }
}
