//! Weighted round robin in the smooth order of nginx: with the weights 5, 1, 1 the slots are a a b a c a a.
//!
//! A cycle has as many slots as the sum of the weights, divided by their greatest common divisor, and each backend gets
//! exactly its share of them. If a cycle would have more than [`most_in_cycle`] slots, the weights are scaled down.

use std::cmp::Reverse;

use lb_common::backend::BackendId;

use super::Entry;
use crate::spec::slots::most_in_cycle;

/// One cycle.
pub fn slots(entries: &[Entry]) -> Vec<BackendId> {
    let weights = fitted(entries.iter().map(|entry| u64::from(entry.weight)).collect());
    order(&weights).map(|place| entries[place].id).collect()
}

/// The weights of a cycle that is not too long.
fn fitted(weights: Vec<u64>) -> Vec<u64> {
    let most = u64::from(most_in_cycle(weights.len()));
    let weights = reduced(weights);
    let total: u64 = weights.iter().sum();
    if total <= most {
        return weights;
    }
    // Rounding adds less than one slot to each.
    let slots = most - weights.len() as u64;
    reduced(weights.into_iter().map(|weight| ((weight * slots + total / 2) / total).max(1)).collect())
}

/// Divided by their greatest common divisor.
fn reduced(mut weights: Vec<u64>) -> Vec<u64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    weights.iter_mut().for_each(|weight| *weight /= divisor);
    weights
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Backends of one weight. They take turns in their order, so one step looks at each weight, not at each backend.
struct Class {
    weight: i64,
    /// Positions of the backends.
    members: Vec<usize>,
    /// The member whose turn it is.
    next: usize,
    /// The slots that this member has so far.
    taken: i64,
}

impl Class {
    /// Of two members that are equally far behind, the first one is chosen.
    fn rank(&self, step: i64, total: i64) -> (i64, Reverse<usize>) {
        (step * self.weight - total * self.taken, Reverse(self.members[self.next]))
    }

    fn take(&mut self) -> usize {
        let member = self.members[self.next];
        self.next += 1;
        if self.next == self.members.len() {
            (self.next, self.taken) = (0, self.taken + 1);
        }
        member
    }
}

/// The positions of one cycle. Each step takes the backend that is furthest behind its share, as nginx does
/// (`ngx_http_upstream_get_peer`).
fn order(weights: &[u64]) -> impl Iterator<Item = usize> + use<> {
    let total = weights.iter().sum::<u64>() as i64;
    let mut classes: Vec<Class> = Vec::new();
    let mut by_weight: Vec<usize> = (0..weights.len()).collect();
    by_weight.sort_by_key(|place| weights[*place]);
    for members in by_weight.chunk_by(|a, b| weights[*a] == weights[*b]) {
        let weight = weights[members[0]] as i64;
        classes.push(Class { weight, members: members.to_vec(), next: 0, taken: 0 });
    }
    (1..=total).filter_map(move |step| {
        let class = classes.iter_mut().max_by_key(|class| class.rank(step, total))?;
        Some(class.take())
    })
}

#[cfg(test)]
mod tests {
    use lb_common::pool::Pool;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_is_that_of_nginx() {
        let cases: &[(&[u64], &str)] = &[
            (&[5, 1, 1], "aabacaa"),
            (&[1, 1, 1], "abc"),
            (&[1, 2], "bab"),
            (&[4, 3, 2], "abcabacba"),
            (&[1, 0, 1], "ac"),
            (&[], ""),
        ];
        for (weights, expected) in cases {
            let order: String = order(weights).map(|place| char::from(b'a' + place as u8)).collect();

            assert_eq!(order, *expected, "{weights:?}");
        }
    }

    #[test]
    fn a_cycle_is_as_short_as_exact_shares_allow() {
        assert_eq!(fitted(vec![100, 200, 300]), [1, 2, 3]);
        assert_eq!(fitted(vec![100; 8]), [1; 8]);
        assert_eq!(fitted(vec![4095, 1]), [4095, 1]);
    }

    #[test]
    fn a_long_cycle_is_scaled_and_every_backend_keeps_a_slot() {
        let weights: Vec<u64> = (1..=1000).collect();

        let scaled = fitted(weights.clone());

        let total: u64 = scaled.iter().sum();
        assert!(total <= 4096, "{total}");
        for (weight, scaled) in weights.iter().zip(&scaled) {
            let exact = *weight as f64 * total as f64 / 500_500.0;
            assert!(*scaled >= 1 && (*scaled as f64 - exact).abs() <= 1.0, "{weight}: {scaled}, not {exact}");
        }
    }

    #[test]
    fn a_pool_of_all_backends_has_a_cycle() {
        let entries: Vec<_> =
            (1..=65_536).map(|id| super::super::maglev::tests::entry(id, 1 + id % 7)).collect();

        let slots = slots(&entries);

        assert!(slots.len() < Pool::LENGTHS as usize && slots.len() >= entries.len());
    }

    /// As in nginx's source, without classes.
    fn of_nginx(weights: &[u64]) -> Vec<usize> {
        let total = weights.iter().sum::<u64>() as i64;
        let mut current = vec![0; weights.len()];
        let step = |_| {
            let mut best: Option<usize> = None;
            for place in 0..weights.len() {
                current[place] += weights[place] as i64;
                if best.is_none_or(|best| current[place] > current[best]) {
                    best = Some(place);
                }
            }
            let best = best.unwrap();
            current[best] -= total;
            best
        };
        (0..total).map(step).collect()
    }

    proptest! {
        #[test]
        fn each_cycle_has_the_order_of_nginx(weights in prop::collection::vec(1..40u64, 1..12)) {
            prop_assert_eq!(order(&weights).collect::<Vec<_>>(), of_nginx(&weights));
        }

        #[test]
        fn shares_are_exact_and_no_backend_is_ever_ahead_by_a_slot(
            weights in prop::collection::vec(1..200u64, 1..12),
        ) {
            let total: u64 = weights.iter().sum();
            let mut taken = vec![0; weights.len()];
            for (step, place) in (1..).zip(order(&weights)) {
                taken[place] += 1;
                prop_assert!(taken[place] * total < step * weights[place] + total);
            }
            prop_assert_eq!(taken, weights);
        }

        #[test]
        fn no_cycle_is_too_long(weights in prop::collection::vec(1..=1000u64, 1..2000)) {
            let most = most_in_cycle(weights.len());
            prop_assert!(fitted(weights).iter().sum::<u64>() <= u64::from(most));
        }
    }
}
