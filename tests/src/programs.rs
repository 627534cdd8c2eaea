//! Loading the programs of an object.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::Xdp,
};
use lb_common::limits::Room;
use lb_ebpf::path::slow::SlowPath;

const SLOW_PATHS: &str = "SLOW_PATHS";

/// Sets the mask for `BACKENDS`, as xlb does, for a map of the object's own size.
pub fn set_backends_mask(loader: &mut EbpfLoader<'_>) {
    const MASK: u32 = Room::OBJECT.places() - 1;
    loader.override_global("BACKENDS_MASK", &MASK, false);
}

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
        slow_paths(ebpf)?
            .set(path as u32, &fd, 0)
            .with_context(|| format!("write {SLOW_PATHS}: {}", path.name()))?;
    }
    Ok(())
}

/// The program array that leads to the slow paths.
pub fn slow_paths(ebpf: &mut Ebpf) -> Result<ProgramArray<&mut MapData>> {
    let paths = ebpf.map_mut(SLOW_PATHS).with_context(|| format!("there is no map {SLOW_PATHS}"))?;
    Ok(ProgramArray::try_from(paths)?)
}
