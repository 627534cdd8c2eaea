//! What a peer need not be told, because it computes the same backends as this node.

use std::{collections::HashSet, sync::Arc};

use super::changes::Changes;
use crate::group::{
    view::{Listen, View},
    wire::Frame,
};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Computed {
    /// Where the services listen whose backends it computes.
    pub listens: HashSet<Listen>,
    /// Flows that were not sent, with each repetition.
    pub count: u64,
}

impl Computed {
    /// Frames with those changes that the peer must be told.
    pub fn frames(&mut self, changes: &Changes, view: &View, sequence: &mut u64) -> Vec<Arc<Frame>> {
        if self.listens.is_empty() {
            return changes.frames(sequence);
        }
        let exceptions = changes.exceptions(|flow| {
            self.listens.contains(&(flow.listen, flow.protocol)) && view.is_as_computed(flow)
        });
        self.count += (changes.len() - exceptions.len()) as u64;
        exceptions.frames(sequence)
    }
}
