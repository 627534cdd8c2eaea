//! The compiler of the XDP program: see [`crate::toolchain`] for the two variants.

use std::path::Path;

use super::{Need, Remedy, apt};
use crate::{
    toolchain::{Toolchain, debian_core},
    tools::BPF_LINKER,
};

/// Nothing if either variant is complete; otherwise Debian's packages if apt is available.
pub fn needs() -> Vec<Need> {
    if Toolchain::find().is_some() {
        return Vec::new();
    }
    if !apt::is_available() {
        return vec![Need {
            what: "a Rust compiler for BPF",
            reason: "compiles the XDP program",
            is_met: false,
            remedy: Remedy::ByHand(
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
            remedy: Remedy::Package("rustc-web"),
        },
        Need {
            what: "libstd-rust-web-dev-bpf",
            reason: "precompiled `core` for BPF",
            is_met: has_core,
            remedy: Remedy::Package("libstd-rust-web-dev-bpf"),
        },
        Need {
            what: "LLVM 22",
            reason: "bpf-linker is built with it",
            is_met: Path::new("/usr/lib/llvm-22/bin/llvm-config").is_file(),
            remedy: Remedy::Package("llvm-22-dev"),
        },
        Need {
            what: "bpf-linker",
            reason: "links the XDP program",
            is_met: BPF_LINKER.installed().is_some(),
            remedy: Remedy::Crate(&BPF_LINKER),
        },
    ]
}
