//! The benchmark: what a packet costs, compared with baselines and with other balancers.
//!
//! ```text
//!   packets      BPF_PROG_TEST_RUN through a wrapper: ns per packet, beside one LRU hit
//!   cpus         the same on two CPUs at once, as a multiple of one
//!   new_flows    new flows of each scheduler, beside round robin; retried flows; answers
//!   group        30,000 new flows a second on a node whose peer follows, and a peer that joins and gets a million
//!   frames       live frames between veths: frames per second, beside nftables
//!   end_to_end   wrk and nginx: connections and requests per second, beside nftables and HAProxy
//!   checks       1,000 backends with https checks each second: CPU of the daemon, lateness of probes
//!   scale        4,096 services with four backends each: times of start, change and answers, CPU of the daemon
//!   sweeps       four million flows: times of a scrape while backends are removed
//! ```

pub mod balancer;
pub mod checks;
pub mod cpus;
pub mod end_to_end;
pub mod flows;
pub mod frame;
pub mod frames;
pub mod group;
pub mod new_flows;
pub mod object;
pub mod packets;
pub mod report;
pub mod scale;
pub mod sharing;
pub mod sweeps;
pub mod wrapper;
