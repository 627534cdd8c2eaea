//! The contract between the XDP program and its controller: the keys and values of every map.
//!
//! Nothing here allocates, does IO or accesses maps. Structs have no padding, because maps compare and copy bytes.
//! Numbers from packets stay in network order and have their own type ([`net::Be16`]); all other numbers are in host
//! order.
//!
//! ```text
//!   Service (address, port, protocol) ─▶ Pool ─▶ slots ─▶ backend id ─▶ Backend
//!   Record (one per flow) ─▶ backend id, client's next hop           reply index ─▶ Record
//! ```
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![warn(missing_docs)]

pub mod answers;
pub mod backend;
pub mod cell;
pub mod clock;
pub mod counters;
pub mod ejection;
pub mod event;
pub mod flow;
pub mod hop;
pub mod layout;
pub mod limits;
pub mod net;
mod number;
#[cfg(feature = "user")]
mod pod;
pub mod pool;
pub mod quiet;
pub mod reason;
pub mod service;
pub mod settings;
