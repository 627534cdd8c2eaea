//! The kernel's side of the core's traits. No decisions are made here.

pub mod counters;
pub mod frame;
pub mod maps;
pub mod outline;
pub mod routes;
pub mod tables;
pub mod trace;
