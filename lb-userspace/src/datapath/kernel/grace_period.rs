//! Waits for an RCU grace period: until every run of a program that began before is over.
//!
//! XDP programs run in RCU read sections, and the kernel ends each update of a map of maps with `synchronize_rcu`
//! (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c, commit 1ae80cf31938). The kernel's own BPF tests wait this way too.
//! `membarrier` does not serve: kernels with `nohz_full` refuse it, and with one CPU online it does not wait.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::Context as _;

use super::raw;
use crate::datapath::shapes::Kind;

/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`
const ARRAY_OF_MAPS: u32 = 12;

/// Returns when no CPU runs a program that began before the call.
pub fn wait() -> anyhow::Result<()> {
    update_a_map_of_maps().context("cannot wait for an RCU grace period")
}

fn update_a_map_of_maps() -> io::Result<()> {
    let inner = raw::create_array(Kind::Array as u32, None)?;
    let outer = raw::create_array(ARRAY_OF_MAPS, Some(inner.as_fd()))?;
    raw::update(&outer, &0_u32.to_ne_bytes(), &inner.as_raw_fd().to_ne_bytes())
}
