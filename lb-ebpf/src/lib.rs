//! The data plane: a pure packet core, and (on the BPF target only) the kernel's side of it.
//!
//! The core is a function from a packet, the tables and the host's routes to a verdict. It is built and tested on any
//! host; the same source is compiled for BPF. It reaches packets only through [`packet::frame::Frame`], maps only through
//! [`storage::Storage`], and has no notion of health or configuration.
//!
//! ```text
//!  parse ─▶ prefilter ─▶ find the flow ─▶ rewrite ─▶ transmit | redirect
//!               │ no: pass      │ miss
//!               ▼               ▼ tail call
//!            not_service      classify ─▶ route ─▶ insert ─▶ rewrite ─▶ ...
//! ```
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![warn(missing_docs)]

pub mod family;
#[cfg(target_arch = "bpf")]
pub mod kernel;
pub mod mode;
pub mod opaque;
pub mod packet;
pub mod path;
pub mod picker;
pub mod steps;
pub mod storage;
pub mod table;
