//! The rows, by topic.

pub mod balancing;
pub mod capacity;
pub mod closing;
pub mod computed;
pub mod damage;
pub mod failing_backends;
pub mod forwarding;
pub mod handshake;
pub mod icmp;
pub mod least_connections;
pub mod malformed;
pub mod max_flows;
pub mod members;
pub mod next_hops;
pub mod no_flow;
pub mod other_macs;
pub mod passed_to_host;
pub mod reject;
pub mod scheduling;
pub mod timeouts;
pub mod udp;

/// Calls a macro with the names of all themes: each suite makes a test of every one.
#[macro_export]
macro_rules! for_all_themes {
    ($call:ident) => {
        $call! {
            balancing, capacity, closing, computed, failing_backends, forwarding, handshake, icmp, least_connections, malformed,
            max_flows, members, next_hops, no_flow, other_macs, passed_to_host, reject, scheduling, timeouts, udp
        }
    };
}
