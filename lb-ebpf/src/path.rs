//! The path of a packet through the program: the fast path, and the slow paths that it calls.

pub mod classify;
pub mod client_hop;
pub mod computed;
pub mod ended;
pub mod expire;
pub mod icmp;
pub mod new_flow;
pub mod pipeline;
pub mod refresh;
pub mod reject;
pub mod reply;
pub mod request;
pub mod resume;
pub mod slow;
