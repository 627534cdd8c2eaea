//! A weighted Maglev table: a small change of the backends moves few flows.
//!
//! "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), 3.4: each backend has a permutation of the
//! slots, and in each round every backend takes the first free slot of its own. Weights as in Envoy: a backend takes
//! part in a share of the rounds that is proportional to its weight.
//!
//! A permutation follows from the key and the backend's address. Ids and the order of the file do not matter, so all
//! nodes with one key have one table.

use lb_common::{
    backend::BackendId,
    net::{Address, Be16, Ports, V6},
};
use lb_ebpf::table::hash;

use super::Entry;
use crate::{hash_key::HashKey, spec::slots::TABLE as SLOTS};

/// A backend, and its way through its permutation.
struct Walk {
    id: BackendId,
    weight: u64,
    /// Its next slot, if that is free.
    next: u32,
    step: u32,
    /// It takes part in a round once the round's number times its weight reaches this.
    due: u64,
}

impl Walk {
    fn new(entry: &Entry, key: &HashKey) -> Self {
        let address = Address::from(entry.address.ip()).as_v6();
        let ports = Ports::new(Be16::new(entry.address.port()), Be16::new(0));
        let hash = hash::v6(key.words(), address, V6(0, 0), ports, 0);
        let (low, high) = (hash as u32, (hash >> 32) as u32);
        Self {
            id: entry.id,
            weight: entry.weight.into(),
            next: low % SLOTS,
            step: high % (SLOTS - 1) + 1,
            due: 0,
        }
    }

    fn advance(&mut self) {
        self.next += self.step;
        if self.next >= SLOTS {
            self.next -= SLOTS;
        }
    }
}

/// The table. Without entries, there is none.
pub fn slots(entries: &[Entry], key: &HashKey) -> Vec<BackendId> {
    let mut entries = entries.to_vec();
    entries.sort_by_key(|entry| entry.address);
    let Some(most) = entries.iter().map(|entry| u64::from(entry.weight)).max() else { return Vec::new() };
    let mut walks: Vec<Walk> = entries.iter().map(|entry| Walk::new(entry, key)).collect();
    // An entry without an id has its slots, too.
    let mut table: Vec<Option<BackendId>> = vec![None; SLOTS as usize];
    let mut free = SLOTS;
    for round in 1.. {
        for walk in &mut walks {
            if round * walk.weight < walk.due {
                continue;
            }
            walk.due += most;
            while table[walk.next as usize].is_some() {
                walk.advance();
            }
            table[walk.next as usize] = Some(walk.id);
            free -= 1;
            if free == 0 {
                return table.into_iter().flatten().collect();
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
pub mod tests {
    use std::net::SocketAddr;

    use super::*;

    const KEY: HashKey = HashKey::new([
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0,
        0x082e_fa98_ec4e_6c89,
        0x4528_21e6_38d0_1377,
        0xbe54_66cf_34e9_0c6c,
    ]);

    pub fn entry(id: u32, weight: u32) -> Entry {
        let [_, a, b, c] = id.to_be_bytes();
        Entry { id: BackendId(id), address: SocketAddr::from(([10, a, b, c], 8080)), weight }
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        let cases: &[&[u32]] =
            &[&[1, 1, 1], &[100; 10], &[100; 100], &[5, 1, 1], &[1000, 1], &[1, 2, 3, 4, 50]];
        for weights in cases {
            let entries: Vec<_> = (1..).zip(*weights).map(|(id, weight)| entry(id, *weight)).collect();

            let table = slots(&entries, &KEY);

            let total: u32 = weights.iter().sum();
            for entry in &entries {
                let count = table.iter().filter(|id| **id == entry.id).count() as f64;
                let exact = f64::from(SLOTS) * f64::from(entry.weight) / f64::from(total);
                assert!((count - exact).abs() <= 0.01 * exact + 1.0, "{weights:?}: {count}, not {exact}");
            }
        }
    }

    #[test]
    fn a_backend_that_leaves_moves_few_flows_of_others() {
        for count in [3, 10, 100] {
            let all: Vec<_> = (1..=count).map(|id| entry(id, 100)).collect();
            let before = slots(&all, &KEY);
            for gone in [1, count / 2, count] {
                let left: Vec<_> = all.iter().filter(|it| it.id.0 != gone).copied().collect();

                let after = slots(&left, &KEY);

                let others = before.iter().zip(&after).filter(|(before, _)| before.0 != gone);
                let moved = others.filter(|(before, after)| before != after).count() as f64;
                let share = moved / f64::from(SLOTS);
                assert!(share <= 0.01, "{gone} of {count}: {share}");
            }
        }
    }

    #[test]
    fn nodes_with_one_key_agree_whatever_their_ids_and_the_order_of_the_file() {
        let here: Vec<_> = (1..=20).map(|id| entry(id, 1 + id % 3)).collect();
        let there: Vec<_> =
            here.iter().rev().map(|it| Entry { id: BackendId(100 - it.id.0), ..*it }).collect();

        let (here, there) = (slots(&here, &KEY), slots(&there, &KEY));

        assert!(here.iter().zip(&there).all(|(here, there)| there.0 == 100 - here.0));
    }

    #[test]
    fn another_key_is_another_table() {
        let entries: Vec<_> = (1..=10).map(|id| entry(id, 1)).collect();
        let other_key = HashKey::new(KEY.words().map(|word| word.rotate_left(7)));

        let (one, other) = (slots(&entries, &KEY), slots(&entries, &other_key));

        let same = one.iter().zip(&other).filter(|(one, other)| one == other).count() as f64;
        assert!((same / f64::from(SLOTS) - 0.1).abs() < 0.02, "{same}");
    }

    #[test]
    fn without_backends_there_is_no_table_and_one_backend_has_all_of_it() {
        assert_eq!(slots(&[], &KEY), []);
        assert!(slots(&[entry(7, 3)], &KEY).iter().all(|id| *id == BackendId(7)));
    }
}
