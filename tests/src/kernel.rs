//! The kernel engine: the loaded program, run by `BPF_PROG_TEST_RUN` over real maps and the host's real routes.
//!
//! It needs root, and a thread of its own, because the thread moves into a network namespace.

mod maps;
mod network;

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions, maps::DevMap, programs::Xdp};

use lb_common::quiet::Quiet;
use lb_ebpf::path::slow::SlowPath;

use self::network::Network;
use crate::{
    engine::{Action, Counters, Engine, MAX_BUCKETS, Memory, Outcome},
    programs,
    world::World,
};

/// Where the XDP program is: `XLB_BPF_DIR`, the directory that `cargo xtask build` compiles it to.
pub fn object() -> Result<PathBuf> {
    let directory = env::var_os("XLB_BPF_DIR").context(
        "XLB_BPF_DIR is not set; run `cargo xtask build` and set it to the directory of the XDP program",
    )?;
    Ok(PathBuf::from(directory).join("lb"))
}

/// What an ICMP error adds to the frame that it quotes, over IPv6.
const ROOM_FOR_ICMP: usize = 48;

/// Runs the program in the kernel.
pub struct KernelEngine {
    ebpf: Ebpf,
    network: Network,
    quiet: Quiet,
}

impl KernelEngine {
    /// Loads the program. The calling thread is in a new network namespace from here on.
    pub fn new() -> Result<Self> {
        let network = Network::enter()?;
        let object = object()?;
        let mut loader = EbpfLoader::new();
        for map in ["FLOWS4", "FLOWS6", "REPLY_INDEX4", "REPLY_INDEX6"] {
            loader.map_max_entries(map, MAX_BUCKETS);
        }
        programs::set_backends_mask(&mut loader);
        let mut ebpf = loader
            .override_global("CLOCK_IS_SET", &1u8, true)
            .override_global("SHARES_FLOWS", &1u8, true)
            .override_global("AYA_LOG_LEVEL", &0u8, true)
            .load_file(&object)
            .with_context(|| format!("load {}", object.display()))?;
        programs::load(&mut ebpf)?;
        Ok(Self { ebpf, network, quiet: Quiet::No })
    }
}

impl KernelEngine {
    /// Takes an interface out of the device map, as the kernel does when it goes away.
    pub fn lose_device(&mut self, interface: u32) -> Result<()> {
        let devices = self.ebpf.map_mut("DEVICES").context("there is no map DEVICES")?;
        DevMap::try_from(devices)?.set(interface, 0, None, 0).context("write DEVICES")
    }

    /// Takes a slow path out of the program array, as the kernel does with all of them when the array's last pin goes.
    pub fn lose_slow_path(&mut self, path: SlowPath) -> Result<()> {
        programs::slow_paths(&mut self.ebpf)?.clear_index(&(path as u32)).context("clear a slow path")
    }
}

impl Engine for KernelEngine {
    fn reset(&mut self, world: &World) -> Result<()> {
        maps::clear(&mut self.ebpf).context("clear the maps")?;
        self.quiet = Quiet::No;
        self.load(world)
    }

    fn load(&mut self, world: &World) -> Result<()> {
        anyhow::ensure!(world.missing.is_none(), "the kernel's maps lack nothing");
        if std::mem::replace(&mut self.quiet, world.quiet) != Quiet::AtFirst && world.quiet == Quiet::AtFirst
        {
            maps::forget_first_seen(&mut self.ebpf)?;
        }
        maps::load(&mut self.ebpf, &world.maps(0)).context("write the maps")?;
        self.network.learn(&world.neighbours)
    }

    fn run(&mut self, interface: u32, frame: &[u8]) -> Result<Outcome> {
        let program: &Xdp = self.ebpf.program("lb").context("there is no program `lb`")?.try_into()?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: Vec<u8> =
            [0, frame.len() as u32, 0, interface, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        // An ICMP error is longer than the packet that it quotes.
        let mut after = [frame, &[0; ROOM_FOR_ICMP]].concat();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut after),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .context("run the program")?;
        after.truncate(result.data_size_out as usize);
        // enum xdp_action
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            4 => Action::Redirect,
            other => bail!("the program returned {other}"),
        };
        let (asked, reported) = (maps::asked(&mut self.ebpf)?, maps::reported(&mut self.ebpf)?);
        Ok(Outcome { action, frame: after, asked, reported })
    }

    fn counters(&mut self) -> Result<Counters> {
        maps::counters(&self.ebpf).context("read the counters")
    }

    fn memory(&mut self) -> Result<Memory> {
        maps::memory(&self.ebpf).context("read the flow table")
    }
}
