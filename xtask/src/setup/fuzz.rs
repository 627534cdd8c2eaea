//! What `fuzz` builds libFuzzer with.

use super::{Need, Remedy};
use crate::command;

pub fn needs() -> Vec<Need> {
    vec![Need {
        what: "c++",
        reason: "compiles libFuzzer",
        is_met: command::find("c++").is_some(),
        remedy: Remedy::Package("g++"),
    }]
}
