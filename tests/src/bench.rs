//! The bench: what a packet costs, beside floors and beside others.

pub mod object;
