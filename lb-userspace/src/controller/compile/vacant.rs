//! Numbers that nobody has.

use std::collections::BTreeMap;

/// Where to go on looking for a free number, of each kind.
pub struct Vacant {
    pub services: Cursor,
    pub backends: Cursor,
    pub pools: Cursor,
    pub sources: Cursor,
}

impl Default for Vacant {
    fn default() -> Self {
        // The set of sources with the number 0 is none.
        Self { services: Cursor(0), backends: Cursor(0), pools: Cursor(0), sources: Cursor(1) }
    }
}

/// All numbers before it are taken.
pub struct Cursor(u32);

impl Cursor {
    /// The smallest number below `limit` that neither map has and that was not taken before.
    pub fn take<V>(&mut self, limit: u32, taken: [&BTreeMap<u32, V>; 2]) -> Option<u32> {
        let free = |number: &u32| !taken.iter().any(|map| map.contains_key(number));
        let number = (self.0..limit).find(free)?;
        self.0 = number + 1;
        Some(number)
    }
}
