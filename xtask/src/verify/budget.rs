//! `xtask/verify.toml`: how many instructions the verifier may visit.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::tree;

/// Maximum budget of a program. The kernel's own limit is 1,000,000, but versions differ in how many they visit.
pub const MAX_PROGRAM: u32 = 50_000;
/// Maximum budget of an object.
pub const MAX_TOTAL: u32 = 500_000;

/// The line for the programs that have none of their own.
const ANY_OTHER: &str = "*";

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Object -> program -> instructions.
    budget: BTreeMap<String, BTreeMap<String, u32>>,
    /// Object -> instructions of all its programs.
    total: BTreeMap<String, u32>,
}

/// Its path.
pub fn file() -> PathBuf {
    tree::top().join("xtask/verify.toml")
}

impl Budget {
    pub fn read() -> Result<Self> {
        let path = file();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("parse {}", path.display()))
    }

    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.budget.keys().map(String::as_str)
    }

    pub fn most(&self, object: &str, program: &str) -> Option<u32> {
        let budgets = self.budget.get(object)?;
        budgets.get(program).or_else(|| budgets.get(ANY_OTHER)).copied()
    }

    /// The budget of all programs of an object together.
    pub fn total(&self, object: &str) -> Option<u32> {
        self.total.get(object).copied()
    }
}

/// Reports a missing budget, a budget above the limit, or a program above its budget.
pub fn complaint(name: &str, visited: u32, most: Option<u32>, limit: u32) -> Option<String> {
    match most {
        None => Some(format!("{name} has no budget: add a line for it")),
        Some(most) if most > limit => {
            Some(format!("{name} has a budget of {most}, above the limit of {limit}"))
        }
        Some(most) if visited > most => {
            Some(format!("{name} is above its budget: {visited} instructions of {most}"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_itself_is_allowed_and_one_more_is_not() {
        assert_eq!(complaint("lb/lb", 700, Some(700), MAX_PROGRAM), None);
        assert!(complaint("lb/lb", 701, Some(700), MAX_PROGRAM).unwrap().contains("701 instructions of 700"));
    }

    #[test]
    fn a_missing_or_too_large_budget_is_refused() {
        assert!(complaint("lb/lb", 1, None, MAX_PROGRAM).unwrap().contains("no budget"));
        assert!(complaint("lb/lb", 1, Some(MAX_PROGRAM + 1), MAX_PROGRAM).unwrap().contains("50001"));
    }

    #[test]
    fn a_program_without_a_line_has_the_budget_of_the_others() {
        let text = "[budget.lb]\nlb = 1\n\"*\" = 2\n[total]\nlb = 3\n";
        let budget: Budget = toml::from_str(text).unwrap();

        assert_eq!((budget.most("lb", "lb"), budget.most("lb", "new_flow4")), (Some(1), Some(2)));
        assert_eq!(budget.most("another", "lb"), None);
    }

    #[test]
    fn the_file_in_the_tree_is_valid_and_covers_the_product() {
        let budget = Budget::read().unwrap();

        assert!(budget.objects().any(|object| object == "lb"));
        assert!(
            budget.most("lb", "lb").is_some() && budget.most("lb", "a slow path without a line").is_some()
        );
        assert!(budget.total("lb").is_some_and(|total| total <= MAX_TOTAL));
    }
}
