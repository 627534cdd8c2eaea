//! Packets: their bytes, their headers, their checksums.

pub mod checksum;
pub mod frame;
pub mod headers;
pub mod icmp;
pub mod parse;
pub mod rewrite;
pub mod tcp;
