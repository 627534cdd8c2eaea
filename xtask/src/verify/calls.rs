//! Decodes the calls in a BPF object to find calls of memory functions.
//!
//! A call of another BPF function is the instruction `0x85` with source register 1; register 0 would call a kernel
//! helper. Its target is `imm + 1` instructions after the symbol of its relocation, or, without relocation, after
//! itself in the same section (RFC 9669, 4.3.2; the ELF side is in the kernel's `Documentation/bpf/llvm_reloc.rst`).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use object::{
    File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SectionKind,
    SymbolKind,
};

/// The functions that LLVM calls for arrays. On BPF they are byte loops.
const MEMORY_FUNCTIONS: &[&str] = &["memcpy", "memmove", "memset", "memcmp", "bcmp"];

const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;
const INSTRUCTION_BYTES: usize = 8;

/// A function's call of a memory function.
pub struct MemoryCall {
    pub caller: String,
    pub callee: String,
    /// Index in the caller's section, as `llvm-objdump` counts.
    pub instruction: u64,
}

/// All calls of memory functions in the object, except calls from one to another.
pub fn to_memory_functions(object: &[u8]) -> Result<Vec<MemoryCall>> {
    let file = File::parse(object).context("parse the object")?;
    let functions = Functions::of(&file);

    let mut found = Vec::new();
    for Call { from, to } in calls(&file)? {
        let (caller, callee) = (functions.around(from), functions.around(to));
        if MEMORY_FUNCTIONS.contains(&callee) && !MEMORY_FUNCTIONS.contains(&caller) {
            let instruction = from.1 / INSTRUCTION_BYTES as u64;
            found.push(MemoryCall { caller: caller.to_owned(), callee: callee.to_owned(), instruction });
        }
    }
    Ok(found)
}

/// A place in the code: a section and the offset in it.
type Place = (SectionIndex, u64);

struct Call {
    from: Place,
    to: Place,
}

fn calls(file: &File<'_>) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let relocations: BTreeMap<u64, Place> = section
            .relocations()
            .filter_map(|(offset, relocation)| Some((offset, target(file, relocation.target())?)))
            .collect();

        for (offset, distance) in local_calls(section.data()?) {
            let (index, base) = relocations.get(&offset).copied().unwrap_or((section.index(), offset));
            calls.push(Call {
                from: (section.index(), offset),
                to: (index, base.wrapping_add_signed(distance)),
            });
        }
    }
    Ok(calls)
}

/// Offset and distance, in bytes, of every call of a BPF function. The second half of a 64-bit load counts as an
/// instruction with opcode 0, so it is never a call.
fn local_calls(code: &[u8]) -> impl Iterator<Item = (u64, i64)> {
    let (instructions, _) = code.as_chunks::<INSTRUCTION_BYTES>();
    instructions.iter().enumerate().filter_map(|(index, &[code, registers, _, _, imm @ ..])| {
        let is_local = code == CALL && registers >> 4 == PSEUDO_CALL;
        let distance = (i64::from(i32::from_le_bytes(imm)) + 1) * INSTRUCTION_BYTES as i64;
        is_local.then_some(((index * INSTRUCTION_BYTES) as u64, distance))
    })
}

/// The place of a relocation's symbol. Other relocation targets do not occur in BPF.
fn target(file: &File<'_>, target: RelocationTarget) -> Option<Place> {
    let RelocationTarget::Symbol(index) = target else {
        return None;
    };
    let symbol = file.symbol_by_index(index).ok()?;
    Some((symbol.section_index()?, symbol.address()))
}

/// Where the functions begin.
struct Functions<'a>(BTreeMap<(usize, u64), &'a str>);

impl<'a> Functions<'a> {
    fn of(file: &File<'a>) -> Self {
        let functions = file
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text)
            .filter_map(|symbol| Some(((symbol.section_index()?.0, symbol.address()), symbol.name().ok()?)));
        Self(functions.collect())
    }

    /// The function that a place is in.
    fn around(&self, (section, offset): Place) -> &'a str {
        let mut before = self.0.range((section.0, 0)..=(section.0, offset));
        before.next_back().map_or("?", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_bpf_functions_are_local() {
        let helper = [0x85, 0x00, 0, 0, 1, 0, 0, 0];
        let backwards = [0x85, 0x10, 0, 0, 0xfd, 0xff, 0xff, 0xff];
        let relocated = [0x85, 0x10, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let load = [0x18, 0x11, 0, 0, 0x85, 0x10, 0, 0, 0, 0, 0, 0, 0x85, 0x10, 0, 0];

        let code = [&helper[..], &load, &backwards, &relocated].concat();

        assert_eq!(local_calls(&code).collect::<Vec<_>>(), [(24, -16), (32, 0)]);
    }
}
