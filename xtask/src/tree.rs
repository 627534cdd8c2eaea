//! Where things are in the tree.

use std::path::{Path, PathBuf};

/// The top of the workspace.
pub fn top() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Programs that `setup` installs: `bin/` below it, as `cargo install --root` lays it out.
pub fn tools() -> PathBuf {
    top().join("target/tools")
}

/// Debian packages that `setup` unpacks: a directory for each, and `bin/` with what starts their programs.
pub fn unpacked() -> PathBuf {
    tools().join("unpacked")
}

/// The target directory of the BPF build, apart from the host's: compiler and flags differ.
pub fn bpf_target() -> PathBuf {
    top().join("target/bpf")
}

/// The compiled BPF objects, one file for each program.
pub fn bpf_objects() -> PathBuf {
    bpf_target().join("bpfel-unknown-none/bpf")
}

/// The product, as `build` leaves it.
pub fn xlb() -> PathBuf {
    top().join("target/release/xlb")
}
