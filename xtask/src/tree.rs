//! Paths in the tree.

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

/// Debian packages that `setup` unpacks: a directory for each, and `bin/` with launchers for their programs.
pub fn unpacked() -> PathBuf {
    tools().join("unpacked")
}

/// The target directory of the BPF build. It is separate from the host's, because compiler and flags differ.
pub fn bpf_target() -> PathBuf {
    top().join("target/bpf")
}

/// The compiled BPF objects, one file per program.
pub fn bpf_objects() -> PathBuf {
    bpf_target().join("bpfel-unknown-none/bpf")
}

/// What `fuzz` builds and finds.
pub fn fuzz() -> PathBuf {
    top().join("target/fuzz")
}

/// Builds whose maps have other layouts, for tests of upgrades.
pub fn layouts() -> PathBuf {
    top().join("target/layouts")
}

/// Other revisions that the bench compares this tree with.
pub fn ab() -> PathBuf {
    top().join("target/ab")
}

/// The release binary that `build` produces.
pub fn xlb() -> PathBuf {
    top().join("target/release/xlb")
}
