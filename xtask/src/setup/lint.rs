//! What `lint` runs.

use std::env;

use super::{Need, Remedy};
use crate::{
    cargo, command,
    toolchain::{self, Toolchain},
    tools::CARGO_DENY,
};

pub fn needs() -> Vec<Need> {
    vec![
        Need {
            what: "cargo fmt",
            reason: "checks the format",
            is_met: command::query(cargo::cargo().args(["fmt", "--version"])).is_some(),
            remedy: of_rustup_or_debian("`rustup component add rustfmt`", "rustfmt-web"),
        },
        Need {
            what: "cargo clippy",
            reason: "checks the host's code",
            is_met: command::query(cargo::cargo().args(["clippy", "--version"])).is_some(),
            remedy: of_rustup_or_debian("`rustup component add clippy`", "rust-web-clippy"),
        },
        clippy_for_bpf(),
        Need {
            what: "cargo-deny",
            reason: "checks licences and sources of dependencies",
            is_met: CARGO_DENY.installed().is_some(),
            remedy: Remedy::Crate(&CARGO_DENY),
        },
    ]
}

/// Clippy is tied to its compiler, so the BPF compiler has its own.
fn clippy_for_bpf() -> Need {
    let (is_met, remedy) = match Toolchain::find() {
        Some(Toolchain::Nightly { .. }) => (
            toolchain::nightly_has_clippy(),
            Remedy::ByHand("`rustup component add clippy --toolchain nightly`"),
        ),
        // If no toolchain is installed yet, it will be Debian's.
        Some(Toolchain::Debian { .. }) | None => {
            (toolchain::debian_has_clippy(), Remedy::Package("rust-web-clippy"))
        }
    };
    Need { what: "clippy for BPF", reason: "checks the XDP program's code", is_met, remedy }
}

/// The cargo that runs xtask belongs to rustup, whose toolchains the user manages, or to the distribution.
fn of_rustup_or_debian(words: &'static str, package: &'static str) -> Remedy {
    if env::var_os("RUSTUP_TOOLCHAIN").is_some() { Remedy::ByHand(words) } else { Remedy::Package(package) }
}
