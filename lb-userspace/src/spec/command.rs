//! The settings of a backend in a command. The API takes them as JSON, whose shape does not change.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::DEFAULT_WEIGHT;
use crate::named::{Named, json_by_name, named};

/// `POST /v1/services/{service}/backends/{backend}`
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NewBackend {
    /// Where requests are sent.
    pub address: SocketAddr,
    /// 0 to 1000, default [`DEFAULT_WEIGHT`]. 0: no new flows.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// Used only if no regular backend of its family can take new flows.
    #[serde(default)]
    pub backup: bool,
    /// It gets no new flows while it has this number of flows. 0: no limit.
    #[serde(default)]
    pub max_flows: u32,
}

fn default_weight() -> u32 {
    DEFAULT_WEIGHT
}

/// `PATCH /v1/services/{service}/backends/{backend}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BackendPatch {
    /// `None`: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_state: Option<AdminState>,
    /// 0 to 1000. `None`: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// `None`: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
}

/// The changes for the log: "drain, weight 50".
impl fmt::Display for BackendPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { admin_state, weight, backup } = self;
        let changes = [
            admin_state.map(|state| state.name().to_owned()),
            weight.map(|weight| format!("weight {weight}")),
            backup.map(|backup| format!("backup {backup}")),
        ];
        f.write_str(&changes.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// The administrative state of a backend, from the loosest to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminState {
    /// In service.
    #[default]
    Ready,
    /// No new flows. Existing ones stay.
    Drain,
    /// No flows at all.
    Maint,
}

named!(AdminState { Ready = "ready", Drain = "drain", Maint = "maint", });
json_by_name!(AdminState);
