//! The keyed hash of flows.
//!
//! NH, the universal hash of UMAC (RFC 4418, 5.2): pairs of 32-bit words, each with a secret key added, are
//! multiplied and summed. Without the keys, an attacker cannot choose tuples that collide (probability 2^-32 per pair).
//! The cost is one multiplication per pair. Two rounds of multiply and shift then spread the sum over all bits, because
//! buckets, tags and preferred ways use different bits.

use lb_common::net::{Ports, V4, V6};

/// [`lb_common::settings::Settings::keys`]: two 32-bit keys per word, the last word for the final mix.
pub type Keys = [u64; 6];

#[inline(always)]
const fn pair(sum: u64, key: u64, a: u32, b: u32) -> u64 {
    let (a, b) = (a.wrapping_add(key as u32), b.wrapping_add((key >> 32) as u32));
    sum.wrapping_add((a as u64).wrapping_mul(b as u64))
}

#[inline(always)]
const fn finish(sum: u64, key: u64) -> u64 {
    let mut hash = sum ^ key;
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ hash >> 32
}

/// The hash of an IPv4 tuple.
#[inline(always)]
pub const fn v4(keys: &Keys, source: V4, destination: V4, ports: Ports, protocol: u8) -> u64 {
    let sum = pair(0, keys[0], source.0, destination.0);
    let sum = pair(sum, keys[1], ports.raw(), protocol as u32);
    finish(sum, keys[5])
}

/// The hash of an IPv6 tuple.
#[inline(always)]
pub const fn v6(keys: &Keys, source: V6, destination: V6, ports: Ports, protocol: u8) -> u64 {
    let sum = pair(0, keys[0], source.0 as u32, (source.0 >> 32) as u32);
    let sum = pair(sum, keys[1], source.1 as u32, (source.1 >> 32) as u32);
    let sum = pair(sum, keys[2], destination.0 as u32, (destination.0 >> 32) as u32);
    let sum = pair(sum, keys[3], destination.1 as u32, (destination.1 >> 32) as u32);
    let sum = pair(sum, keys[4], ports.raw(), protocol as u32);
    finish(sum, keys[5])
}

/// A number below `count` from 32 bits of a hash, without a division.
#[inline(always)]
pub const fn reduce(bits: u32, count: u32) -> u32 {
    ((bits as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::net::Be16;

    extern crate std;
    use std::{vec, vec::Vec};

    const KEYS: Keys = [
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0,
        0x082e_fa98_ec4e_6c89,
        0x4528_21e6_38d0_1377,
        0xbe54_66cf_34e9_0c6c,
    ];

    fn hash(client: u32, port: u16) -> u64 {
        let ports = Ports::new(Be16::new(port), Be16::new(80));
        v4(&KEYS, V4(client.to_be()), V4::from_bytes([192, 0, 2, 10]), ports, 6)
    }

    #[test]
    fn neighbouring_flows_spread_evenly_over_buckets_tags_and_ways() {
        const BUCKETS: u32 = 1024;
        let mut buckets = vec![0u32; BUCKETS as usize];
        let mut ways = [0u32; 8];
        let mut tags = Vec::new();
        for client in 0..64 {
            for port in 0..4096 {
                let hash = hash(0x0a00_0000 + client, 1024 + port);
                buckets[reduce(hash as u32, BUCKETS) as usize] += 1;
                ways[(hash >> 32) as usize & 7] += 1;
                tags.push((hash >> 32) as u32);
            }
        }

        // 262,144 flows: expected are 256 per bucket and 32,768 per way; six standard deviations are allowed.
        assert!(buckets.iter().all(|count| count.abs_diff(256) < 96), "{buckets:?}");
        assert!(ways.iter().all(|count| count.abs_diff(32_768) < 1_100), "{ways:?}");
        tags.sort_unstable();
        tags.dedup();
        assert!(tags.len() > 262_144 - 40, "{} different tags", tags.len());
    }

    #[test]
    fn another_key_is_another_hash() {
        let other = KEYS.map(|key| key.rotate_left(7));
        let ports = Ports::from_raw(1);

        assert_ne!(v4(&KEYS, V4(1), V4(2), ports, 6) as u32, v4(&other, V4(1), V4(2), ports, 6) as u32);
        assert_ne!(
            v6(&KEYS, V6(1, 2), V6(3, 4), ports, 6) as u32,
            v6(&other, V6(1, 2), V6(3, 4), ports, 6) as u32
        );
    }

    #[test]
    fn a_reduced_number_is_below_the_count() {
        assert_eq!(reduce(u32::MAX, 7), 6);
        assert_eq!(reduce(0, 7), 0);
    }
}
