//! Unused numbers.

use std::collections::BTreeMap;

/// Where to continue the search for an unused number of each kind.
pub struct Vacant {
    pub services: Cursor,
    pub backends: Cursor,
    pub pools: Cursor,
    pub sources: Cursor,
}

impl Default for Vacant {
    fn default() -> Self {
        // The source set with the number 0 means none.
        Self { services: Cursor(0), backends: Cursor(0), pools: Cursor(0), sources: Cursor(1) }
    }
}

/// All numbers below it are used.
pub struct Cursor(u32);

impl Cursor {
    /// The smallest number below `limit` that is in neither map and was not taken before.
    pub fn take<K: Copy + Ord + From<u32>, V>(
        &mut self,
        limit: u32,
        taken: [&BTreeMap<K, V>; 2],
    ) -> Option<K> {
        let free = |number: &u32| !taken.iter().any(|map| map.contains_key(&K::from(*number)));
        let number = (self.0..limit).find(free)?;
        self.0 = number + 1;
        Some(number.into())
    }
}
