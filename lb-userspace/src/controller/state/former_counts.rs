//! Counts of health checks of names that have no backend. A backend that gets the name again continues from there.
//!
//! The counts of packets and flows are kept in a map, which outlives the daemon; these counts are lost when the daemon
//! stops.

use std::collections::BTreeMap;

use super::health_state::HealthCounts;
use crate::spec::BackendName;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct FormerCounts(BTreeMap<BackendName, HealthCounts>);

impl FormerCounts {
    /// A name has lost its backend. At most `most` names are kept; beyond that, the first in name order is
    /// dropped.
    pub fn keep(&mut self, name: BackendName, counts: HealthCounts, most: u32) {
        if counts == HealthCounts::default() {
            return;
        }
        if self.0.len() >= most as usize && !self.0.contains_key(&name) {
            self.0.pop_first();
        }
        self.0.insert(name, counts);
    }

    /// The counts of a name that gets a backend.
    pub fn take(&mut self, name: &BackendName) -> HealthCounts {
        self.0.remove(name).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_names_are_kept_than_allowed_and_the_last_one_always_is() {
        let mut former = FormerCounts::default();
        let counts = |changes| HealthCounts { changes, ..HealthCounts::default() };
        let name = |number: u64| BackendName::new("web", &format!("web-{number}"));

        for number in 1..=9 {
            former.keep(name(number), counts(number), 4);
        }

        assert_eq!(former.0.len(), 4);
        assert_eq!(former.take(&name(9)), counts(9));
        assert_eq!(former.take(&name(9)), counts(0));
        former.keep(name(1), counts(0), 4);
        assert_eq!(former.0.len(), 3, "zeros are not kept");
    }
}
