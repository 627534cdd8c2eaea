//! A packet's way through the program.

pub mod classify;
pub mod icmp;
pub mod pipeline;
pub mod reply;
pub mod request;
