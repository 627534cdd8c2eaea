//! What `lint` runs.

use std::env;

use super::{Cure, Need};
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
            is_met: command::ask(cargo::cargo().args(["fmt", "--version"])).is_some(),
            cure: of_rustup_or_debian("`rustup component add rustfmt`", "rustfmt-web"),
        },
        Need {
            what: "cargo clippy",
            reason: "checks the host's code",
            is_met: command::ask(cargo::cargo().args(["clippy", "--version"])).is_some(),
            cure: of_rustup_or_debian("`rustup component add clippy`", "rust-web-clippy"),
        },
        clippy_for_bpf(),
        Need {
            what: "cargo-deny",
            reason: "checks licences and sources of dependencies",
            is_met: CARGO_DENY.installed().is_some(),
            cure: Cure::Crate(&CARGO_DENY),
        },
    ]
}

/// A clippy is of one piece with its compiler, so the compiler for BPF has its own.
fn clippy_for_bpf() -> Need {
    let (is_met, cure) = match Toolchain::find() {
        Some(Toolchain::Nightly { .. }) => (
            toolchain::nightly_has_clippy(),
            Cure::ByHand("`rustup component add clippy --toolchain nightly`"),
        ),
        // Where there is none yet, it will be Debian's.
        Some(Toolchain::Debian { .. }) | None => {
            (toolchain::debian_has_clippy(), Cure::Package("rust-web-clippy"))
        }
    };
    Need { what: "clippy for BPF", reason: "checks the XDP program's code", is_met, cure }
}

/// The cargo that runs us belongs to rustup, whose toolchains are the user's affair, or to the distribution.
fn of_rustup_or_debian(words: &'static str, package: &'static str) -> Cure {
    if env::var_os("RUSTUP_TOOLCHAIN").is_some() { Cure::ByHand(words) } else { Cure::Package(package) }
}
