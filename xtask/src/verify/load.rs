//! Loads an object's programs and queries the kernel for their statistics.

use anyhow::{Context as _, Result, bail};
use aya::{
    EbpfLoader,
    programs::{Program, ProgramInfo},
};

/// A program that the verifier accepted.
pub struct Loaded {
    pub name: String,
    /// Instructions that the verifier visited on all paths.
    pub visited: u32,
    /// Instructions after the verifier's translation.
    pub instructions: u32,
    pub jited_bytes: u32,
}

/// Loads every program of an object as xlb does by default, without traces, reads its statistics and unloads it.
pub fn programs(object: &[u8]) -> Result<Vec<Loaded>> {
    let mut loader = EbpfLoader::new();
    loader.override_global("AYA_LOG_LEVEL", &0u8, false);
    // xlb sets it by its limits. With the object's default, 0, the verifier would follow fewer paths.
    loader.override_global("BACKENDS_MASK", &4095u32, false);
    let mut ebpf = loader.load(object).context("create the maps")?;
    let mut programs = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        let Program::Xdp(program) = program else {
            bail!("program `{name}` is not an XDP program");
        };
        program.load().with_context(|| format!("the verifier rejects program `{name}`"))?;
        programs.push(loaded(name, &program.info()?)?);
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

fn loaded(name: &str, info: &ProgramInfo) -> Result<Loaded> {
    const INSTRUCTION_BYTES: u32 = 8;
    let visited = info.verified_instruction_count();
    Ok(Loaded {
        name: name.to_owned(),
        visited: visited.context(
            "this kernel does not report the verifier's visited instructions (Linux 5.16 and newer do)",
        )?,
        instructions: info.size_translated().unwrap_or_default() / INSTRUCTION_BYTES,
        jited_bytes: info.size_jitted(),
    })
}
