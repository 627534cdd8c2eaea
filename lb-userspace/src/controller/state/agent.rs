//! What the agent of a backend has said: check type `agent`.
//!
//! It is kept until the agent says something else. It never changes what the operator has set: of two administrative
//! states, the stricter one counts.

use crate::{
    probe::{AgentReport, WeightPercent},
    spec::AdminState,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    pub admin: AdminState,
    pub weight: WeightPercent,
    /// The agent has not said this. It follows from the maps that an earlier daemon has left.
    is_assumed: bool,
}

impl Default for Agent {
    fn default() -> Self {
        Self { admin: AdminState::Ready, weight: WeightPercent::ALL, is_assumed: false }
    }
}

impl Agent {
    /// What counts until the agent has said something.
    pub fn assumed(admin: AdminState, weight: WeightPercent) -> Self {
        Self { admin, weight, is_assumed: true }
    }

    /// What counts after this report.
    pub fn after(self, report: &AgentReport) -> Self {
        let before = if self.is_assumed { Self::default() } else { self };
        Self {
            admin: report.state.unwrap_or(before.admin),
            weight: report.weight.unwrap_or(before.weight),
            is_assumed: false,
        }
    }

    /// Do flows depend on the difference?
    pub fn differs(self, other: Self) -> bool {
        (self.admin, self.weight) != (other.admin, other.weight)
    }

    /// Has the agent itself taken the backend out of service?
    pub fn has_withdrawn(self) -> bool {
        self.admin != AdminState::Ready && !self.is_assumed
    }
}
