//! The nodes of a group share their flows, so that each can continue the connections of the others.

pub mod digest;
pub mod tls;
pub mod wire;
