//! A list of flows, built during a walk over the tables.

use super::selection::Selection;
use crate::{
    datapath::{Flow, Snapshot},
    event::Reply,
    problem::{Problem, ProblemKind},
    spec::BackendName,
    view,
};

/// The limit if the query has none.
pub const DEFAULT_LIMIT: usize = 1_000;
/// The highest limit.
pub const MAX_LIMIT: usize = 100_000;

#[derive(Debug)]
pub struct Listing {
    selection: Selection,
    limit: usize,
    found: Vec<view::Flow>,
    reply: Reply<Vec<view::Flow>>,
}

/// The limit of a query.
pub fn limit(query: &view::FlowQuery) -> Result<usize, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if limit > MAX_LIMIT {
        let detail = format!("limit {limit} is too high: at most {MAX_LIMIT} flows can be listed at once");
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    Ok(limit)
}

impl Listing {
    pub fn new(selection: Selection, limit: usize, reply: Reply<Vec<view::Flow>>) -> Self {
        Self { selection, limit, found: Vec::new(), reply }
    }

    /// Adds the flow if it is selected.
    pub fn add(&mut self, flow: &Flow, have: &Snapshot) {
        if self.found.len() < self.limit
            && let Some(name) = self.selection.name_of(flow, have)
        {
            self.found.push(shown(flow, name));
        }
    }

    /// The list is full, or the client has disconnected.
    pub fn is_done(&self) -> bool {
        self.found.len() >= self.limit || self.reply.is_closed()
    }

    pub fn finish(self) {
        self.reply.send(Ok(self.found));
    }

    pub fn refuse(self, why: String) {
        self.reply.send(Err(Problem::new(ProblemKind::Failed, why)));
    }
}

fn shown(flow: &Flow, name: &BackendName) -> view::Flow {
    view::Flow {
        protocol: flow.protocol,
        client: flow.client,
        listen: flow.listen,
        service: name.service.clone(),
        backend: name.backend.clone(),
        backend_address: flow.backend,
        source: flow.source,
        state: flow.state.into(),
        idle_seconds: flow.idle.as_secs_f64(),
    }
}
