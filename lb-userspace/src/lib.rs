//! xlb: the daemon that keeps the XDP program's maps in step with what the operator wants, and the CLI.
//!
//! ```text
//!   file, overlay ─▶ spec ─┐
//!   probes ─▶ health ──────┤                                    ┌▶ Datapath (kernel: aya; memory: tests)
//!   netlink ─▶ neighbours ─┼─▶ controller: State ─compile─▶ Snapshot ─diff─▶ Plan
//!   api ◀────▶ requests ───┘
//! ```
//!
//! One task, the controller, owns the state and the datapath. Everybody else sends it events ([`event::Event`]) or
//! asks it questions; nobody shares memory with it.

#![warn(missing_docs)]

pub mod api;
pub mod cli;
mod controller;
pub mod daemon;
pub mod datapath;
mod document;
mod duration;
pub mod event;
mod health;
mod metrics;
mod neighbours;
pub mod paths;
pub mod probe;
mod shutdown;
pub mod spec;
mod text;
