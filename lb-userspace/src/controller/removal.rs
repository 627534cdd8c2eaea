//! The removal of flows by command, during a walk over the tables.

use log::info;

use super::selection::Selection;
use crate::{
    datapath::{Datapath, Snapshot},
    event::Reply,
    problem::{Problem, ProblemKind},
    view,
};

#[derive(Debug)]
pub struct Removal {
    selection: Selection,
    limit: u64,
    removed: u64,
    reply: Reply<view::FlowsRemoved>,
}

impl Removal {
    /// Of at most `limit` flows.
    pub const fn new(selection: Selection, limit: u64, reply: Reply<view::FlowsRemoved>) -> Self {
        Self { selection, limit, removed: 0, reply }
    }

    /// Ends the selected flows of one chunk. Returns where the next one begins.
    pub fn walk_chunk(
        &mut self,
        from: u32,
        datapath: &mut impl Datapath,
        have: &Snapshot,
    ) -> anyhow::Result<Option<u32>> {
        let mut left = self.limit - self.removed;
        let (ended, next) = datapath.end_flows(from, &mut |flow| {
            let is_selected = left > 0 && self.selection.name_of(flow, have).is_some();
            left -= u64::from(is_selected);
            is_selected
        })?;
        self.removed += ended;
        Ok(next)
    }

    /// The limit is reached, or the client has disconnected.
    pub fn is_done(&self) -> bool {
        self.removed >= self.limit || self.reply.is_closed()
    }

    pub fn finish(self) {
        info!(selection:% = self.selection, flows = self.removed; "flows removed");
        self.reply.send(Ok(view::FlowsRemoved { removed: self.removed }));
    }

    pub fn refuse(self, why: String) {
        let detail = format!("{why} ({} flows were removed before)", self.removed);
        self.reply.send(Err(Problem::new(ProblemKind::Failed, detail)));
    }
}
