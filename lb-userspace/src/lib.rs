//! xlb: the daemon that keeps the XDP program's maps up to date with the operator's intent, and the CLI.
//!
//! ```text
//!   file, overlay ─▶ spec ─┐
//!   probes ─▶ health ──────┤                                    ┌▶ Datapath (kernel: aya; memory: tests)
//!   netlink ─▶ neighbours ─┼─▶ controller: State ─compile─▶ Snapshot ─diff─▶ Plan
//!   api ◀────▶ requests ───┘
//! ```
//!
//! One task, the controller, owns the state and the datapath. Other tasks send it events ([`event::Event`]) and
//! requests, and share no memory with it.

//!
//! Imports point downwards. What the file, the API and the CLI share lies below all three:
//!
//! ```text
//!   daemon
//!   cli ─▶ api        controller   cluster   group   health   neighbours
//!   event ─▶ view     datapath   metrics
//!   spec              the file, and what commands change
//!   probe ─▶ document
//!   exit   problem   duration   limit   named   ownership   shared   text   tls_files
//! ```

#![warn(missing_docs)]

mod announced_addresses;
pub mod api;
pub mod cli;
mod cluster;
mod controller;
pub mod daemon;
pub mod datapath;
mod document;
mod drain_store;
mod durable;
mod duration;
pub mod event;
pub mod exit;
#[cfg(test)]
mod fake;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod group;
pub mod hash_key;
mod health;
pub mod interface_address;
pub mod interface_settings;
mod limit;
mod limited_file;
mod metrics;
mod named;
mod neighbours;
mod ownership;
pub mod paths;
pub mod probe;
pub mod problem;
mod random;
mod role_store;
mod route_socket;
mod shared;
pub mod spec;
mod text;
mod tls_files;
mod track_file;
pub mod view;
