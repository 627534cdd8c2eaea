//! How often numbers are referred to, and which entries nothing refers to.

use std::collections::{BTreeMap, BTreeSet};

/// How often each number is referred to.
#[derive(Clone, Debug, PartialEq)]
pub struct Uses<N> {
    counts: BTreeMap<N, u32>,
    /// Numbers of what nothing refers to.
    unused: BTreeSet<N>,
}

impl<N> Default for Uses<N> {
    fn default() -> Self {
        Self { counts: BTreeMap::new(), unused: BTreeSet::new() }
    }
}

impl<N: Copy + Ord> Uses<N> {
    /// The numbers of existing entries that nothing refers to.
    pub fn unused(&self) -> impl Iterator<Item = &N> {
        self.unused.iter()
    }

    /// Does an entry refer to it? It need not exist.
    pub fn is_used(&self, number: N) -> bool {
        self.counts.contains_key(&number)
    }

    /// The entry with this number exists from now on.
    pub fn add(&mut self, number: N) {
        if !self.counts.contains_key(&number) {
            self.unused.insert(number);
        }
    }

    /// The entry with this number is gone.
    pub fn delete(&mut self, number: N) {
        self.unused.remove(&number);
    }

    /// Another entry refers to it.
    pub fn acquire(&mut self, number: N) {
        *self.counts.entry(number).or_default() += 1;
        self.unused.remove(&number);
    }

    /// An entry no longer refers to it.
    pub fn release(&mut self, number: N) {
        let Some(count) = self.counts.get_mut(&number) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&number);
            self.unused.insert(number);
        }
    }
}
