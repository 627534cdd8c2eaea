//! Packets: their bytes, their headers, their checksums.

pub mod answer;
pub mod checksum;
pub mod frame;
pub mod headers;
pub mod icmp;
pub mod parse;
pub mod reset;
pub mod rewrite;
pub mod tcp;
pub mod unreachable;
