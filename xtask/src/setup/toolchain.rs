//! What compiles the XDP program: see [`crate::toolchain`] for the two shapes.

use std::path::Path;

use super::{Cure, Need, apt};
use crate::{
    toolchain::{Toolchain, debian_core},
    tools::BPF_LINKER,
};

/// Nothing where either shape is complete; Debian's where it can be had.
pub fn needs() -> Vec<Need> {
    if Toolchain::find().is_some() {
        return Vec::new();
    }
    if !apt::is_here() {
        return vec![Need {
            what: "a Rust compiler for BPF",
            reason: "it compiles the XDP program",
            is_met: false,
            cure: Cure::ByHand(
                "`rustup toolchain install nightly --component rust-src` and `cargo install bpf-linker`",
            ),
        }];
    }

    let has_core = debian_core();
    vec![
        Need {
            what: "rustc-web",
            reason: "compiles the XDP program",
            is_met: has_core,
            cure: Cure::Package("rustc-web"),
        },
        Need {
            what: "libstd-rust-web-dev-bpf",
            reason: "`core` for BPF, compiled",
            is_met: has_core,
            cure: Cure::Package("libstd-rust-web-dev-bpf"),
        },
        Need {
            what: "LLVM 22",
            reason: "bpf-linker is built on it",
            is_met: Path::new("/usr/lib/llvm-22/bin/llvm-config").is_file(),
            cure: Cure::Package("llvm-22-dev"),
        },
        Need {
            what: "bpf-linker",
            reason: "links the XDP program",
            is_met: BPF_LINKER.installed().is_some(),
            cure: Cure::Crate(&BPF_LINKER),
        },
    ]
}
