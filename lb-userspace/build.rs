//! Makes the compiled XDP program, if there is one, available to `datapath::object`.
//!
//! `cargo xtask build` names it in `XLB_BPF_OBJECT`. Without the variable the crate builds on any host with stable
//! Rust, and `xlb run` fails with a message that names what is missing.

use std::{env, path::Path};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_bpf_object)");
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    println!("cargo::rerun-if-env-changed=XLB_BPF_OBJECT");
    let Some(object) = env::var_os("XLB_BPF_OBJECT") else {
        return;
    };

    let object = Path::new(&object);
    if !object.is_absolute() || !object.is_file() {
        println!("cargo::error=XLB_BPF_OBJECT is {}, not the absolute path of a file", object.display());
        return;
    }
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-cfg=has_bpf_object");
}
