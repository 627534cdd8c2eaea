//! Loading the programs of an object.

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::ProgramArray, programs::Xdp};
use lb_ebpf::path::slow::SlowPath;

const SLOW_PATHS: &str = "SLOW_PATHS";

/// Loads every program, and lets the XDP program jump to its slow paths, if the object has them.
pub fn load(ebpf: &mut Ebpf) -> Result<()> {
    for (name, program) in ebpf.programs_mut() {
        let xdp: &mut Xdp = program.try_into()?;
        xdp.load().with_context(|| format!("load program {name}"))?;
    }
    for &path in SlowPath::ALL {
        let Some(program) = ebpf.program(path.name()) else { continue };
        let program: &Xdp = program.try_into()?;
        let fd = program.fd()?.try_clone()?;
        let paths = ebpf.map_mut(SLOW_PATHS).with_context(|| format!("there is no map {SLOW_PATHS}"))?;
        ProgramArray::try_from(paths)?
            .set(path as u32, &fd, 0)
            .with_context(|| format!("write {SLOW_PATHS}: {}", path.name()))?;
    }
    Ok(())
}
